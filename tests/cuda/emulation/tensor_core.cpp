#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <deque>
#include <vector>

#include "emulated_tensor_core.h"

namespace drover::cuda {

namespace emulation {

namespace {

struct Copy {
  void* to;
  const void* from;
  size_t bytes, zeros;
};
struct Pending {
  uint3 block{};  // that it is of: what an earlier block never waited for is forgotten
  std::vector<Copy> open;
  std::deque<std::vector<Copy>> committed;
};

Pending& pending() {
  static std::vector<Pending> of_thread(1024);
  Pending& mine =
      of_thread.at(place.thread.x + place.block_dim.x * (place.thread.y + place.block_dim.y * place.thread.z));
  const uint3 block = place.block;
  if (block.x != mine.block.x || block.y != mine.block.y || block.z != mine.block.z) mine = {block, {}, {}};
  return mine;
}

}  // namespace

[[noreturn]] static void wrong(const char* what) {
  std::fprintf(stderr, "%s\n", what);
  std::abort();
}

void copy_later(void* to, const void* from, size_t bytes, size_t zeros) {
  if (bytes != 4 && bytes != 8 && bytes != 16) wrong("an asynchronous copy has 4, 8 or 16 bytes");
  if (zeros > bytes || reinterpret_cast<uintptr_t>(to) % bytes != 0 || reinterpret_cast<uintptr_t>(from) % bytes != 0)
    wrong("an asynchronous copy is aligned as it is long");
  pending().open.push_back({to, from, bytes, zeros});
}

void commit_copies() {
  Pending& mine = pending();
  mine.committed.push_back(std::move(mine.open));
  mine.open.clear();
}

void wait_for_copies(size_t but_the_last) {
  Pending& mine = pending();
  for (; mine.committed.size() > but_the_last; mine.committed.pop_front()) {
    for (const Copy& copy : mine.committed.front()) {
      std::memcpy(copy.to, copy.from, copy.bytes - copy.zeros);
      std::memset(static_cast<char*>(copy.to) + copy.bytes - copy.zeros, 0, copy.zeros);
    }
  }
}

}  // namespace emulation

namespace {

int own_row() { return emulation::lane() / 2; }
int own_column() { return emulation::lane() % 2 * 8; }

void check_aligned(const void* at, int64_t pitch_bytes, int64_t bytes) {
  if (reinterpret_cast<uintptr_t>(at) % static_cast<uintptr_t>(bytes) != 0 || pitch_bytes % bytes != 0)
    emulation::wrong("a tile of the tensor cores and its rows are aligned");
}

}  // namespace

const bf16* TileSource::tile(int at) const {
  check_aligned(matrix_ + at, pitch_ * int64_t{2}, 16);
  return matrix_ + at;
}
LeftTile TileSource::left(int at) const {
  const bf16* const from = tile(at);
  LeftTile tile;
  for (int k = 0; k < 16; ++k) tile.value[k] = static_cast<float>(from[own_row() * pitch_ + k]);
  return tile;
}
LeftTile TileSource::left_transposed(int at) const {
  const bf16* const from = tile(at);
  LeftTile tile;
  for (int k = 0; k < 16; ++k) tile.value[k] = static_cast<float>(from[k * pitch_ + own_row()]);
  return tile;
}
RightTile TileSource::right(int at) const {
  const bf16* const from = tile(at);
  RightTile tile;
  for (int k = 0; k < 16; ++k) {
    for (int j = 0; j < 8; ++j) tile.value[k][j] = static_cast<float>(from[k * pitch_ + own_column() + j]);
  }
  return tile;
}
void clear(SumTile& sum) {
  for (float& v : sum.value) v = 0;
}
void add_product(SumTile& sum, const LeftTile& a, const RightTile& b) {
  for (int k = 0; k < 16; ++k) {
    for (int j = 0; j < 8; ++j) sum.value[j] += a.value[k] * b.value[k][j];
  }
}
void store(const SumTile& sum, float* to, int pitch) {
  check_aligned(to, pitch * int64_t{4}, 8);
  std::memcpy(to + own_row() * pitch + own_column(), sum.value, sizeof(sum.value));
}

}  // namespace drover::cuda
