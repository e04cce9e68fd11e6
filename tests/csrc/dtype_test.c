// dtype: every bit pattern of the small types, block types against their formula, and sizes.
#include "dtype.h"
#include "score_encode.h"
#include "test.h"

static bool same(float found, double want) {
  return isnan(want) ? isnan(found) : (double)found == want && !signbit(found) == !signbit(want);
}

static void every_pattern_converts_exactly(void) {
  int32_t wrong[3] = {0};
  for (uint32_t bits = 0; bits < 65536; bits++) {
    wrong[0] += !same(ckv_f16_to_f32((uint16_t)bits), decode_f16((uint16_t)bits));
    wrong[1] += !same(ckv_bf16_to_f32((uint16_t)bits), decode_bf16((uint16_t)bits));
    wrong[2] += bits < 256 && !same(ckv_f8_e4m3_to_f32((uint8_t)bits), decode_f8((uint8_t)bits));
  }
  CHECK(wrong[0] == 0, "f16: %d patterns", wrong[0]);
  CHECK(wrong[1] == 0, "bf16: %d patterns", wrong[1]);
  CHECK(wrong[2] == 0, "f8_e4m3: %d patterns", wrong[2]);
  CHECK((double)ckv_f8_e4m3_to_f32(0x7e) == 448, "the largest e4m3 is 448");
}

static void rows_convert_exactly(void) {
  enum { MOST = 96 };
  for (int32_t dtype = 0; ckv_dtype_name(dtype); dtype++) {
    double values[MOST];
    for (int32_t j = 0; j < MOST; j++) values[j] = 20.0 * (double)test_float() - 10.0;
    char row[MOST * 4 + 1];  // one byte off: rows need no alignment
    encode_row(dtype, values, MOST, row + 1);
    float out[MOST];
    ckv_row_to_f32(dtype, row + 1, MOST, out);
    int32_t wrong = 0;
    for (int32_t j = 0; j < MOST; j++) wrong += (double)out[j] != values[j];
    CHECK(wrong == 0, "%s: %d of %d elements", ckv_dtype_name(dtype), wrong, MOST);
  }
}

static void sizes_and_names(void) {
  CHECK(ckv_row_bytes(CKV_F32, 3) == 12, "f32");
  CHECK(ckv_row_bytes(CKV_BF16, 128) == 256, "bf16");
  CHECK(ckv_row_bytes(CKV_Q8_0, 64) == 68, "q8_0");
  CHECK(ckv_row_bytes(CKV_Q4_0, 128) == 72, "q4_0");
  CHECK(ckv_row_bytes(CKV_F8_E4M3, 5) == 5, "f8_e4m3");
  CHECK(ckv_row_bytes(CKV_Q8_0, 33) == -1, "a block is whole");
  CHECK(ckv_row_bytes(CKV_F32, -1) == -1, "no negative row");
  CHECK(ckv_row_bytes(-1, 32) == -1 && ckv_row_bytes(6, 32) == -1, "unknown dtypes");
  CHECK(ckv_dtype_name(-1) == NULL && ckv_dtype_name(6) == NULL, "unknown dtypes have no name");
  CHECK(strcmp(ckv_dtype_name(CKV_F8_E4M3), "f8_e4m3") == 0, "names follow the numbers");
  CHECK(strcmp(ckv_isa_name(CKV_ISA_NEON_BF16), "neon_bf16") == 0, "names follow the numbers");
  CHECK(ckv_isa_name(-1) == NULL && ckv_isa_name(6) == NULL, "unknown ISAs have no name");
  CHECK(ckv_isa_usable(CKV_ISA_SERIAL) == 1, "serial runs everywhere");
  CHECK(ckv_isa_usable(-1) == 0 && ckv_isa_usable(99) == 0, "unknown ISAs do not run");
}

int main(void) {
  test_begin("dtype");
  every_pattern_converts_exactly();
  rows_convert_exactly();
  sizes_and_names();
  return test_end();
}
