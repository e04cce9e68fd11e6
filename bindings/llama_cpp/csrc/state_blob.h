// The engine's serialised state of a sequence: how large it must be, what it must say, and new
// positions written into it. All fields in host byte order, unaligned:
//
//   u32 magic, i32 sequence
//   per cache (the global one, then with sliding windows a second one):
//     u32 streams, for each stream u32 cells; all cells of a sequence are in one, which goes on with
//     cells x { i32 position, u32 sequences (1), i32 sequence }
//     u32 values_transposed (0), u32 layers
//     layers x { i32 type, u64 row bytes, cells x row }    keys
//     layers x { i32 type, u64 row bytes, cells x row }    values
#ifndef CKVL_STATE_BLOB_H
#define CKVL_STATE_BLOB_H

#include "capture.h"

#define CKVL_BLOB_MAGIC 0xaf143cd8u
#define CKVL_BLOB_HEADER_BYTES 8

// A reader that fails once and stays failed.
typedef struct ckvl_reader {
  const uint8_t *data;
  size_t size, offset;
  bool failed;
} ckvl_reader;

uint32_t ckvl_read_u32(ckvl_reader *reader);
uint64_t ckvl_read_u64(ckvl_reader *reader);
void ckvl_skip(ckvl_reader *reader, size_t bytes);

// Layers of one cache, by rising index.
typedef struct ckvl_layers {
  const ckvl_layer **data;
  int32_t count;
} ckvl_layers;

// Bytes of a cache's part with that many cells: all of it, and without its rows.
size_t ckvl_blob_cache_bytes(const ckvl_layers *layers, int32_t cells);
size_t ckvl_blob_cache_metadata_bytes(const ckvl_layers *layers, int32_t cells);

// Bytes without rows up to the headers of the keys of the first `num_layers` layers.
size_t ckvl_blob_bytes_to_layer(const ckvl_layers *layers, int32_t cells, int32_t num_layers);

// Bytes of one token in a cache.
size_t ckvl_blob_row_bytes(const ckvl_layers *layers);

// Reads a cache's part strictly: `count` cells of `seq` in these layers, with rows or without. The
// position of each cell must be one of `from`, rising, [count]; to[i] replaces from[i]. Nothing is
// written unless all is as expected.
ckv_status ckvl_blob_replace_positions(uint8_t *data, size_t size, llama_seq_id seq,
                                       const ckvl_layers *layers, int32_t count, bool has_rows,
                                       const llama_pos *from, const llama_pos *to,
                                       ckvl_error *error);

// Makes room in the part of a cache without rows, of one stream, whose cells name no sequence: they name
// `seq` then. `size`: with that.
void ckvl_blob_list_owner(uint8_t *data, size_t size, llama_seq_id seq, int32_t cells);

// Cells of a cache's part, -1 if it does not even start like one.
int32_t ckvl_blob_cache_cells(const uint8_t *data, size_t size);

// True if a cache's part with `cells` cells holds the key rows that the layers have in those cells.
bool ckvl_blob_matches(const ckvl_api *api, const uint8_t *data, size_t size,
                       const ckvl_layers *layers, const int32_t *cell, int32_t cells,
                       uint8_t *scratch);

#endif
