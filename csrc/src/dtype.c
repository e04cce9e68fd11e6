#include "dtype.h"

#include <stddef.h>

typedef struct dtype_info {
  const char *name;
  int32_t block_elements;
  int32_t block_bytes;
} dtype_info;

static const dtype_info dtypes[] = {
#define CKV_DTYPE_ENTRY(id, name, block_elements, block_bytes) \
  [CKV_##id] = {name, block_elements, block_bytes},
#include "kernels.def"
};

static const dtype_info *find(int32_t dtype) {
  const int32_t count = (int32_t)(sizeof dtypes / sizeof dtypes[0]);
  return dtype >= 0 && dtype < count ? &dtypes[dtype] : NULL;
}

const char *ckv_dtype_name(int32_t dtype) {
  const dtype_info *info = find(dtype);
  return info ? info->name : NULL;
}

int64_t ckv_row_bytes(int32_t dtype, int32_t elements) {
  const dtype_info *info = find(dtype);
  if (!info || elements < 0 || elements % info->block_elements != 0) return -1;
  return (int64_t)(elements / info->block_elements) * info->block_bytes;
}

static uint16_t load_u16(const uint8_t *bytes) {
  uint16_t value;
  memcpy(&value, bytes, sizeof value);
  return value;
}

static void q8_0_to_f32(const uint8_t *row, int32_t elements, float *out) {
  for (int32_t block = 0; block < elements / 32; block++, row += 34) {
    const float scale = ckv_f16_to_f32(load_u16(row));
    for (int32_t j = 0; j < 32; j++) out[block * 32 + j] = scale * (float)(int8_t)row[2 + j];
  }
}

static void q4_0_to_f32(const uint8_t *row, int32_t elements, float *out) {
  for (int32_t block = 0; block < elements / 32; block++, row += 18) {
    const float scale = ckv_f16_to_f32(load_u16(row));
    for (int32_t j = 0; j < 16; j++) {
      out[block * 32 + j] = scale * (float)((int32_t)(row[2 + j] & 15) - 8);
      out[block * 32 + 16 + j] = scale * (float)((int32_t)(row[2 + j] >> 4) - 8);
    }
  }
}

void ckv_row_to_f32(int32_t dtype, const void *row, int32_t elements, float *out) {
  const uint8_t *bytes = row;
  switch (dtype) {
    case CKV_F32:
      memcpy(out, row, (size_t)elements * sizeof *out);
      break;
    case CKV_F16:
      for (int32_t j = 0; j < elements; j++) out[j] = ckv_f16_to_f32(load_u16(bytes + 2 * j));
      break;
    case CKV_BF16:
      for (int32_t j = 0; j < elements; j++) out[j] = ckv_bf16_to_f32(load_u16(bytes + 2 * j));
      break;
    case CKV_Q8_0:
      q8_0_to_f32(bytes, elements, out);
      break;
    case CKV_Q4_0:
      q4_0_to_f32(bytes, elements, out);
      break;
    case CKV_F8_E4M3:
      for (int32_t j = 0; j < elements; j++) out[j] = ckv_f8_e4m3_to_f32(bytes[j]);
      break;
    default:
      break;
  }
}
