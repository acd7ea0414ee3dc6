// A named matrix of the whole program, and the part of it that this rank holds in a flat buffer, next to the parts of
// others. What a model names, an optimizer updates and a checkpoint saves, none of them knowing the others.
#pragma once
#include <algorithm>
#include <concepts>
#include <cstdint>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "kernels/tensor.h"

namespace drover {

struct Slice {
  std::string name;   // of the matrix, in files and messages
  int64_t layer = 0;  // of the whole model
  int group = 0;      // slices of one group are updated by the same rule, at the same rate
  // Every tensor-parallel rank holds all of the matrix, and has a part of its gradient; else each holds rows or columns
  // of its own.
  bool whole = true;
  int64_t rows = 0, cols = 0;                                          // of the matrix
  int64_t row_begin = 0, row_count = 0, col_begin = 0, col_count = 0;  // the part
  int64_t offset = 0;  // of its first element in flat buffers; its rows follow one another
  int64_t size() const { return row_count * col_count; }
};

// The slice's elements, (row_count, col_count), in a flat buffer (all slices' sizes, 1).
inline Tensor view(Tensor flat, const Slice& s) {
  Tensor t = flat.rows_from(s.offset, s.size());
  t.rows = s.row_count;
  t.cols = t.pitch = s.col_count;
  return t;
}

// Gives every slice its offset: whole ones first, group after group in each of the two, and in a group as they come.
// What is summed over tensor-parallel ranks is thus one run of the buffer, and a group is two.
template <std::derived_from<Slice> S>
void lay_out(std::span<S> slices) {
  std::vector<Slice*> order;
  for (S& s : slices) order.push_back(&s);
  std::ranges::stable_sort(order, {}, [](const Slice* s) { return std::pair(!s->whole, s->group); });
  int64_t size = 0;
  for (Slice* s : order) {
    s->offset = size;
    size += s->size();
  }
}

template <std::derived_from<Slice> S>
int64_t size_of(std::span<const S> slices) {  // elements of a flat buffer
  int64_t size = 0;
  for (const S& s : slices) size += s.size();
  return size;
}

}  // namespace drover
