// The CUDA library through chunkkv.h, against the CPU's float64 kernels on fresh random input. Runs
// where a GPU is, without Deno and without nvcc.
#include <stdint.h>

#include "graph_cases.h"
#include "hostile_cases.h"

typedef struct group {
  const char *name;
  void (*run)(bool quick);
} group;

static const group GROUPS[] = {
    {"score", test_score},     {"chunks", test_chunks},     {"select", test_select},
    {"compact", test_compact}, {"compress", test_compress}, {"hostile", test_hostile},
    {"graph", test_graph},
};

static const char USAGE[] =
    "Usage: cuda_test [--quick] [--only GROUP] [--seed NUMBER] [--index NUMBER]\n"
    "                 [--device cuda|cpu]\n"
    "Groups: score, chunks, select, compact, compress, hostile, graph.\n"
    "A failure is repeated by the seed that the first line says, with the same --only.\n";

typedef struct options {
  bool quick;
  const char *only, *seed;
  int32_t index;
} options;

static bool parse(int argc, char **argv, options *o) {
  *o = (options){0};
  device_kind = CKV_CUDA;
  for (int i = 1; i < argc; i++) {
    const char *value = i + 1 < argc ? argv[i + 1] : NULL;
    if (strcmp(argv[i], "--quick") == 0) {
      o->quick = true;
      continue;
    }
    if (!value) return false;
    i++;
    if (strcmp(argv[i - 1], "--only") == 0) {
      o->only = value;
    } else if (strcmp(argv[i - 1], "--seed") == 0) {
      o->seed = value;
    } else if (strcmp(argv[i - 1], "--index") == 0) {
      o->index = atoi(value);
    } else if (strcmp(argv[i - 1], "--device") == 0 && strcmp(value, "cpu") == 0) {
      device_kind = CKV_CPU;
    } else if (strcmp(argv[i - 1], "--device") != 0 || strcmp(value, "cuda") != 0) {
      return false;
    }
  }
  return true;
}

int main(int argc, char **argv) {
  options o;
  if (!parse(argc, argv, &o)) {
    fputs(USAGE, stderr);
    return 2;
  }
  setvbuf(stdout, NULL, _IOLBF, 0);
  test_begin("cuda");
  char text[512];
  ckv_device_describe(device_kind, o.index, text, sizeof text);
  printf("device: %s\n", text);
  reference = open_context(CKV_CPU, 0, CKV_ISA_SERIAL);
  device = open_context(device_kind, o.index, CKV_ISA_BEST);
  if (o.seed) test_state = strtoull(o.seed, NULL, 10);
  printf("seed: %llu\n", (unsigned long long)test_state);
  bool ran = false;
  for (size_t i = 0; i < sizeof GROUPS / sizeof GROUPS[0]; i++) {
    if (o.only && strcmp(o.only, GROUPS[i].name) != 0) continue;
    GROUPS[i].run(o.quick);
    ran = true;
  }
  if (!ran) {
    fputs(USAGE, stderr);
    return 2;
  }
  ckv_context_free(device);
  ckv_context_free(reference);
  return test_end();
}
