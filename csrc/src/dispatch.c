#include "dispatch.h"

#include <stddef.h>

#include "../include/chunkkv.h"

static const char *const isa_names[] = {
#define CKV_ISA_ENTRY(id, name) [CKV_ISA_##id] = name,
#include "kernels.def"
};

#define ISA_COUNT ((int32_t)(sizeof isa_names / sizeof isa_names[0]))

const char *ckv_isa_name(int32_t isa) {
  return isa >= 0 && isa < ISA_COUNT ? isa_names[isa] : NULL;
}

int32_t ckv_isa_usable(int32_t isa) { return isa == CKV_ISA_SERIAL; }

int32_t ckv_isa_best(void) {
  for (int32_t isa = ISA_COUNT - 1; isa > CKV_ISA_SERIAL; isa--) {
    if (ckv_isa_usable(isa)) return isa;
  }
  return CKV_ISA_SERIAL;
}
