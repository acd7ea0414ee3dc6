#include "kernels/cpu/attention_common.h"

#include <new>
#include <vector>

#include "kernels/cpu/attention_kernels.h"

namespace drover::cpu {

namespace {

constexpr int64_t kShort = 512;  // keys whose dq is one sum

template <typename T>
struct OnLines {
  using value_type = T;
  static constexpr std::align_val_t kAlignment{kLineBytes};
  OnLines() = default;
  template <typename U>
  OnLines(const OnLines<U>&) {}
  T* allocate(size_t n) { return static_cast<T*>(::operator new(n * sizeof(T), kAlignment)); }
  void deallocate(T* p, size_t) { ::operator delete(p, kAlignment); }
  bool operator==(const OnLines&) const = default;
};

}  // namespace

int64_t attention_scratch_bytes(int64_t rows) {
  constexpr int64_t kRowFloats = 8 * 128, kTileBytes = int64_t{1} << 19, kMostRows = kOnePassFloats / kRowFloats;
  const int64_t floats = std::min(rows, kMostRows) * kRowFloats;
  const int64_t halves = rows > kShort ? std::min(floats, kHalvesFloats) / 2 : 0;
  return (floats + halves) * static_cast<int64_t>(sizeof(float)) + kTileBytes;
}

int64_t keys_of_first_half(const Segment& s, const AttentionShape& shape) {
  if (s.nk <= kShort || 2 * half_floats(shape, s.nq) > kHalvesFloats) return s.nk;
  Segment first = s;
  const int64_t pairs = visible_pairs(s);
  for (first.nk = kTile; first.nk < s.nk && 2 * visible_pairs(first) < pairs;) first.nk += kTile;
  return std::min(first.nk, s.nk);
}

TileBuffers::TileBuffers(std::initializer_list<int64_t> floats) {
  thread_local std::vector<float, OnLines<float>> held;
  require(floats.size() <= kMost, "a task's scratch has at most 16 pieces");
  int64_t total = 0;
  for (const int64_t n : floats) total += whole_lines(n);
  if (static_cast<int64_t>(held.size()) < total) held = std::vector<float, OnLines<float>>(static_cast<size_t>(total));
  float* next = held.data();
  size_t piece = 0;
  for (const int64_t n : floats) {
    pieces_[piece++] = next;
    next += whole_lines(n);
  }
}

}  // namespace drover::cpu
