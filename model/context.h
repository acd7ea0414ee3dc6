// What one pass of a micro-batch, or of a part of one, carries through the layers: device, scratch and rows.
#pragma once
#include <span>

#include "kernels/backend.h"

namespace drover {

// Keys and values of earlier tokens, per layer, for decoding. Rows are dealt to sequences by whoever owns the cache.
struct KvCache {
  struct Layer {
    Tensor k, v;  // (rows, K·E) of this rank
  };
  std::vector<Layer> layers;  // of this stage
  int64_t block_size = 0;     // of the segments' block tables
};

struct Dropout {
  float p = 0;
  uint64_t seed = 0, step = 0;
};

// Which adapter some rows of a pass have: the one in `slot`, where a linear has one there (LinearGroup::attach).
struct AdapterRows {
  int64_t count = 0;
  int slot = 0;
};
inline constexpr int kOwnSlot = 0;     // of the replica's own adapter, which may be training
inline constexpr int kBaseModel = -1;  // no adapter

struct RopeTable {
  Tensor cosine, sine;  // (P, E/2) f32
};

struct Context {
  Backend& backend;
  Arena& scratch;
  DType dtype = DType::f32;  // of activations
  RopeTable rope;
  int64_t begin = 0;  // of these rows in their micro-batch
  Tensor ids;         // (T) i32
  Tensor positions;   // (T) i32
  Tensor documents;   // (T) i32; needed with dropout only
  std::span<const Segment> segments;
  Dropout dropout;
  KvCache* cache = nullptr;               // null: attention over the micro-batch's own keys
  Tensor cache_rows;                      // (T) i32: where this pass writes its keys and values
  SumOrder order = SumOrder::fastest;     // of linears
  std::span<const AdapterRows> adapters;  // of all rows in turn; empty: all have the own slot's
  bool overlapped = false;                // another part computes while this one is summed over tp

  int64_t tokens() const { return positions.rows; }
  DType partial_dtype() const {
    return backend.traits().rounds_partials ? dtype : DType::f32;
  }  // of what tensor-parallel ranks add up
};

}  // namespace drover
