// A serialised state cut off at every byte: refused in words, never read past its end.
#include <string.h>

#include "state_check.h"
#include "test.h"

#define MOST_BYTES 512

static uint8_t blob[MOST_BYTES];
static size_t size, without_values;

static void put(uint32_t value) {
  memcpy(blob + size, &value, sizeof value);
  size += sizeof value;
}

// A cache's part: tokens at positions 0 to cells - 1, one layer with rows of 4 bytes.
static void put_cache(uint32_t cells) {
  put(1);
  put(cells);
  for (uint32_t i = 0; i < cells; i++) {
    put(i);
    put(1);
    put(0);
  }
  put(0);
  put(1);
  for (int32_t side = 0; side < 2; side++) {
    without_values = size;
    put(GGML_TYPE_F16);
    put(4);
    put(0);
    for (uint32_t i = 0; i < cells; i++) put(7);
  }
}

static ckv_status check(size_t bytes, ckvl_error *error) {
  const ckvl_state_limits limits = {
      .num_caches = 2, .max_cells = {8, 8}, .key_type = GGML_TYPE_F16, .value_type = GGML_TYPE_F16};
  // Memory of exactly so many bytes: the sanitizer sees whatever reads past it.
  uint8_t *exact = malloc(bytes ? bytes : 1);
  if (!exact) abort();
  memcpy(exact, blob, bytes);
  ckvl_state_summary summary;
  error->text[0] = '\0';
  const ckv_status status = ckvl_state_check(exact, bytes, &limits, &summary, error);
  if (status == CKV_OK) CHECK(summary.next == 3, "next is %d", summary.next);
  free(exact);
  return status;
}

int main(void) {
  test_begin("llama_state_test");
  put(CKVL_BLOB_MAGIC);
  put(0);
  put_cache(3);
  put_cache(3);
  ckvl_error error;
  CHECK(check(size, &error) == CKV_OK, "%s", error.text);
  for (size_t bytes = 0; bytes < size; bytes++) {
    if (bytes == without_values) continue;  // as of a model whose values are its keys
    CHECK(check(bytes, &error) == CKV_ERROR_INVALID_ARGUMENT && strstr(error.text, "Expected"),
          "%zu bytes: %s", bytes, error.text);
  }
  return test_end();
}
