// Where the engine has its layers: in host memory, or on CUDA devices, each layer on its own.
#ifndef CKVL_PLACES_H
#define CKVL_PLACES_H

#include "capture.h"

#define CKVL_MAX_DEVICES 16

// Whether a tensor is in memory that the CPU reads.
bool ckvl_is_host(const ckvl_api *api, const struct ggml_tensor *tensor);

// The library's contexts of CUDA devices, made when a layer is first found on one, until freed. A block of
// memory there stays from step to step if it is not large: getting it takes as long as some layers do.
typedef struct ckvl_devices {
  ckv_context *cuda[CKVL_MAX_DEVICES];
  void *memory[CKVL_MAX_DEVICES];
  size_t bytes[CKVL_MAX_DEVICES];
} ckvl_devices;

void ckvl_devices_free(ckvl_devices *devices);

// One of the places that a sequence's layers are in, with memory there for one step of a compaction.
typedef struct ckvl_place {
  int32_t device;  // ckv_device
  int32_t index;   // of the CUDA device
  ckv_context *ckv;
  ckvl_devices *devices;
  void *memory;  // on the device; NULL: none, or the host
  size_t bytes, used;
  const int32_t *cells;  // the list of cells, as the place reads it
} ckvl_place;

// Finds the place of a layer; its context is made if it is the first there. `host` serves layers in
// host memory.
ckv_status ckvl_place_find(ckvl_place *place, const ckvl_api *api, const ckvl_layer *layer,
                           ckv_context *host, ckvl_devices *devices, ckvl_error *error);

// Gets memory on the device and a workspace of its context in it, and copies the cells there; nothing
// of that in host memory. `bytes`: all that ckvl_place_take is asked for later; `workspace`: what
// the stages need; count 0: no list of cells is needed.
ckv_status ckvl_place_begin(ckvl_place *place, size_t bytes, int64_t workspace,
                            const int32_t *cells, int32_t count, ckvl_error *error);

// Some of that memory.
void *ckvl_place_take(ckvl_place *place, size_t bytes);

// Bytes that a take uses up.
size_t ckvl_place_round(size_t bytes);

// Waits for the queued work and tells what it found.
ckv_status ckvl_place_finish(ckvl_place *place, ckvl_error *error);

// Copies between the host and the place, in the order of the queued work.
ckv_status ckvl_place_put(ckvl_place *place, void *to, const void *from, size_t bytes,
                          ckvl_error *error);
ckv_status ckvl_place_get(ckvl_place *place, void *to, const void *from, size_t bytes,
                          ckvl_error *error);

// Lets go of the memory; waits for the work that uses it, of which ckvl_place_finish tells what it found.
void ckvl_place_end(ckvl_place *place);

#endif
