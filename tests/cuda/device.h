// The two contexts that are compared, and memory of the one under test. With --device cpu that is a
// CPU context too, so that the tests themselves can be tried where no GPU is.
#ifndef CKV_CUDA_TEST_DEVICE_H
#define CKV_CUDA_TEST_DEVICE_H

#include <math.h>
#include <stdbool.h>
#include <string.h>

#include "../csrc/test.h"
#include "chunkkv.h"

#define GUARD_BYTES 256
#define GUARD_VALUE 0x5a
#define MAX_ALLOCATIONS 1024

static ckv_context *reference, *device;
static int32_t device_kind;

static struct allocation {
  unsigned char *memory;
  int64_t bytes;
} allocations[MAX_ALLOCATIONS];
static int32_t num_allocations;

static void give_up(const char *what, const char *why) {
  fprintf(stderr, "Expected %s but found: %s\n", what, why);
  exit(3);
}

static void *host_alloc(int64_t bytes) {
  void *memory = malloc(bytes > 0 ? (size_t)bytes : 1);
  if (!memory) give_up("memory", "none");
  return memory;
}

static ckv_context *open_context(int32_t kind, int32_t index, int32_t isa) {
  ckv_context_params params;
  ckv_context_default_params(&params);
  params.device = kind;
  params.device_index = index;
  params.isa = isa;
  ckv_context *context = NULL;
  if (ckv_context_create(&params, &context)) {
    char text[512] = "";
    ckv_device_describe(kind, index, text, sizeof text);
    give_up("a context", text);
  }
  return context;
}

static void upload(void *to, const void *from, int64_t bytes) {
  if (device_kind == CKV_CPU) {
    memcpy(to, from, (size_t)bytes);
  } else if (ckv_device_copy(device, to, from, bytes, CKV_COPY_TO_DEVICE)) {
    give_up("a copy to the device", ckv_context_error(device));
  }
}

static void download(void *to, const void *from, int64_t bytes) {
  if (device_kind == CKV_CPU) {
    memcpy(to, from, (size_t)bytes);
  } else if (ckv_device_copy(device, to, from, bytes, CKV_COPY_TO_HOST)) {
    give_up("a copy to the host", ckv_context_error(device));
  }
}

// Memory between guards, all bytes 0xff, `offset` bytes beyond a multiple of 256.
static void *device_space(int64_t bytes, int64_t offset) {
  const int64_t all = bytes + offset + 2 * GUARD_BYTES;
  void *memory = NULL;
  if (device_kind == CKV_CPU) {
    memory = host_alloc(all);
  } else if (ckv_device_alloc(device, all, &memory)) {
    give_up("device memory", ckv_context_error(device));
  }
  if (num_allocations == MAX_ALLOCATIONS) give_up("few allocations", "more");
  allocations[num_allocations++] = (struct allocation){memory, all};
  unsigned char *pattern = host_alloc(all);
  memset(pattern, GUARD_VALUE, (size_t)all);
  memset(pattern + GUARD_BYTES + offset, 0xff, (size_t)bytes);
  upload(memory, pattern, all);
  free(pattern);
  return (unsigned char *)memory + GUARD_BYTES + offset;
}

static void *device_copy(const void *host, int64_t bytes, int64_t offset) {
  if (!host) return NULL;
  void *memory = device_space(bytes, offset);
  upload(memory, host, bytes);
  return memory;
}

static bool is_guard(const unsigned char *bytes, int64_t count) {
  for (int64_t i = 0; i < count; i++) {
    if (bytes[i] != GUARD_VALUE) return false;
  }
  return true;
}

// Frees everything; nothing may have been written around it.
static void device_reset(const char *after) {
  if (device_kind == CKV_CUDA) ckv_context_set_workspace(device, NULL, 0);
  for (int32_t i = 0; i < num_allocations; i++) {
    const struct allocation *a = &allocations[i];
    unsigned char guards[2][GUARD_BYTES];
    download(guards[0], a->memory, GUARD_BYTES);
    download(guards[1], a->memory + a->bytes - GUARD_BYTES, GUARD_BYTES);
    CHECK(is_guard(guards[0], GUARD_BYTES) && is_guard(guards[1], GUARD_BYTES),
          "%s: written around %lld bytes", after, (long long)a->bytes);
    if (device_kind == CKV_CPU) {
      free(a->memory);
    } else {
      ckv_device_free(device, a->memory);
    }
  }
  num_allocations = 0;
}

static bool device_aligned;  // all rows' beginnings at multiples of 16 bytes

// Else half of the time rows lie at the least alignment that their type allows.
static int64_t random_offset(int32_t dtype) {
  if (device_aligned) return 0;
  const int64_t element = dtype == CKV_F32 ? 4 : dtype == CKV_F8_E4M3 ? 1 : 2;
  return test_int(0, 1) ? 0 : element * test_int(0, 16 / (int32_t)element);
}

static ckv_kv_view device_kv(const ckv_kv_view *host) {
  ckv_kv_view v = *host;
  v.device = device_kind;
  v.data = device_copy(host->data, host->size_bytes, random_offset(host->dtype));
  v.kv_lens = device_copy(host->kv_lens, host->batch * (int64_t)sizeof(int32_t), 0);
  v.block_table = device_copy(
      host->block_table, (int64_t)host->batch * host->max_blocks * (int64_t)sizeof(int32_t), 0);
  return v;
}

static ckv_query_view device_queries(const ckv_query_view *host) {
  ckv_query_view q = *host;
  q.device = device_kind;
  q.data = device_copy(host->data, host->size_bytes, random_offset(host->dtype));
  q.log_sum_exp = device_copy(
      host->log_sum_exp,
      (int64_t)host->batch * host->num_q_heads * host->window * (int64_t)sizeof(float), 0);
  return q;
}

static int64_t kept_entries(const ckv_kept *kept) {
  return (int64_t)kept->batch * kept->num_heads * kept->capacity;
}

static ckv_kept device_kept(const ckv_kept *host) {
  ckv_kept kept = *host;
  kept.indices = device_space(kept_entries(host) * (int64_t)sizeof(int32_t), 0);
  kept.lens = device_space(host->batch * (int64_t)sizeof(int32_t), 0);
  return kept;
}

static void upload_kept(const ckv_kept *to, const ckv_kept *from) {
  upload(to->indices, from->indices, kept_entries(from) * (int64_t)sizeof(int32_t));
  upload(to->lens, from->lens, from->batch * (int64_t)sizeof(int32_t));
}

static void download_kept(const ckv_kept *to, const ckv_kept *from) {
  download(to->indices, from->indices, kept_entries(from) * (int64_t)sizeof(int32_t));
  download(to->lens, from->lens, from->batch * (int64_t)sizeof(int32_t));
}

// Half of the time: the caller's workspace, the least that does or the best, and the thread's own stream.
static void random_workspace(const ckv_params *params, const ckv_layer *layers,
                             int32_t num_layers) {
  if (device_kind == CKV_CPU || test_int(0, 1)) return;
  int64_t bytes = 0;
  CHECK(ckv_context_set_stream(device, test_int(0, 1) ? (void *)2 : NULL) == CKV_OK, "%s",
        ckv_context_error(device));
  const ckv_status status = test_int(0, 1)
                                ? ckv_workspace_size(device, params, layers, num_layers, &bytes)
                                : ckv_workspace_best(device, params, layers, num_layers, &bytes);
  CHECK(status == CKV_OK, "%s", ckv_context_error(device));
  CHECK(ckv_context_set_workspace(device, device_space(bytes, 0), bytes) == CKV_OK, "%s",
        ckv_context_error(device));
}

// A stage's status, or what its kernels found.
static ckv_status finished(ckv_status status) {
  return status ? status : ckv_context_finish(device);
}

#endif
