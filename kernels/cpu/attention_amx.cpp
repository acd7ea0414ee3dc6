// AMX: products of bf16 numbers a tile of sixteen rows by sixteen columns at a time (TDPBF16PS), sums and softmax in
// fp32. A tile's products are summed two by two over sixteen words of the sum's index, which begin at multiples of
// sixteen whatever the rows are, so that zeros in front of and behind what a row needs change no bit of it.
#include "kernels/cpu/attention_common.h"
#include "kernels/cpu/attention_kernels.h"
#include "kernels/cpu/intrinsics.h"

#pragma GCC push_options
#pragma GCC target("avx512f,avx512bw,avx512vl,avx512dq,avx512bf16,amx-tile,amx-bf16")

#include "kernels/cpu/attention_backward.h"
#include "kernels/cpu/attention_forward.h"
#include "kernels/cpu/vectors_avx512_bf16.h"

namespace drover::cpu::amx {

namespace {

constexpr int64_t kTileRows = 16, kTileWords = 16;  // of 64 bytes a row

// What LDTILECFG reads (Intel SDM, volume 1, chapter 18): palette 1, then the bytes of a row and the rows of each tile.
// A block of sums is 2 × 2 tiles, 0 to 3, of which a's rows are in tiles 4 and 5 and b's columns in 6 and 7.
struct TileShapes {
  uint8_t palette = 1, start_row = 0, reserved[14] = {};
  uint16_t row_bytes[16] = {};
  uint8_t rows[16] = {};

  TileShapes(int64_t block_rows, int64_t words) {
    const int64_t upper = std::min(block_rows, kTileRows), lower = block_rows - upper;
    for (int i = 0; i < 4; ++i) set(i, i < 2 ? upper : lower, kTileWords);
    set(4, upper, words);
    set(5, lower, words);
    for (int i = 6; i < 8; ++i) set(i, words, kTileWords);
  }

 private:
  void set(int tile, int64_t tile_rows, int64_t words) {
    if (tile_rows == 0) return;  // not used
    rows[tile] = static_cast<uint8_t>(tile_rows);
    row_bytes[tile] = static_cast<uint16_t>(words * static_cast<int64_t>(sizeof(float)));
  }
};
static_assert(sizeof(TileShapes) == 64);

int64_t bytes(int64_t floats) { return floats * static_cast<int64_t>(sizeof(float)); }

// c (M × N tiles) = or += a·b. The intrinsics take a tile's number as it is written.
template <int M, int N, bool add>
void multiply_block(WordRange words, Strided a, Words b, Sums c) {
  const Sums lower = c.from(kTileRows);
  if constexpr (add) {
    _tile_loadd(0, c.data, bytes(c.pitch));
    if constexpr (N == 2) _tile_loadd(1, c.data + kTileWords, bytes(c.pitch));
    if constexpr (M == 2) _tile_loadd(2, lower.data, bytes(c.pitch));
    if constexpr (M == 2 && N == 2) _tile_loadd(3, lower.data + kTileWords, bytes(c.pitch));
  } else {
    _tile_zero(0);
    if constexpr (N == 2) _tile_zero(1);
    if constexpr (M == 2) _tile_zero(2);
    if constexpr (M == 2 && N == 2) _tile_zero(3);
  }
  for (int64_t l = words.begin; l < words.end; l += kTileWords) {
    _tile_loadd(4, a.data + l, bytes(a.row));
    _tile_loadd(6, b.data + l * b.pitch, bytes(b.pitch));
    _tile_dpbf16ps(0, 4, 6);
    if constexpr (N == 2) {
      _tile_loadd(7, b.data + l * b.pitch + kTileWords, bytes(b.pitch));
      _tile_dpbf16ps(1, 4, 7);
    }
    if constexpr (M == 2) {
      _tile_loadd(5, a.from(kTileRows).data + l, bytes(a.row));
      _tile_dpbf16ps(2, 5, 6);
    }
    if constexpr (M == 2 && N == 2) _tile_dpbf16ps(3, 5, 7);
  }
  _tile_stored(0, c.data, bytes(c.pitch));
  if constexpr (N == 2) _tile_stored(1, c.data + kTileWords, bytes(c.pitch));
  if constexpr (M == 2) _tile_stored(2, lower.data, bytes(c.pitch));
  if constexpr (M == 2 && N == 2) _tile_stored(3, lower.data + kTileWords, bytes(c.pitch));
}

template <int M, bool add>
void multiply_columns(int64_t n, WordRange words, Strided a, Words b, Sums c) {
  int64_t j = 0;
  for (; j + 2 * kTileWords <= n; j += 2 * kTileWords) multiply_block<M, 2, add>(words, a, b.at(j), c.at(j));
  for (; j < n; j += kTileWords) multiply_block<M, 1, add>(words, a, b.at(j), c.at(j));
}

// What this thread's tiles are shaped for since its task began, or 0 and 0: LDTILECFG takes as long as several
// products.
thread_local int64_t shaped_rows = 0, shaped_words = 0;

void shape(int64_t block_rows, int64_t words) {
  if (block_rows == shaped_rows && words == shaped_words) return;
  const TileShapes shapes(block_rows, words);
  asm volatile("" : : "m"(shapes));  // the intrinsic names its first eight bytes alone as what it reads
  _tile_loadconfig(&shapes);
  shaped_rows = block_rows, shaped_words = words;
}

void release() {
  _tile_release();
  shaped_rows = shaped_words = 0;
}

// Words that are all of tiles with so many of them.
template <bool add>
void multiply_words(int64_t m, int64_t n, WordRange words, Strided a, Words b, Sums c) {
  if (words.begin == words.end) return;
  shape(m, std::min(words.end - words.begin, kTileWords));
  m > kTileRows ? multiply_columns<2, add>(n, words, a, b, c) : multiply_columns<1, add>(n, words, a, b, c);
}

struct Set : PairsOfBf16 {
  static constexpr bool kTiles = true;
  static constexpr int64_t kRowBlock = 2 * kTileRows;

  // Whole tiles of words, as far as there are any.
  static WordRange in_tiles(WordRange words, int64_t end) {
    const int64_t whole = (words.end + kTileWords - 1) / kTileWords * kTileWords;
    return {words.begin / kTileWords * kTileWords, std::min(whole, end)};
  }

  template <bool add>
  static void multiply_rows(int64_t m, int64_t n, WordRange words, Strided a, Words b, Sums c) {
    alignas(64) float turned[kRowBlock * kTile / kPair];
    if (a.col != 1) a = transposed(m, words, a, turned);
    asm volatile("" ::: "memory");  // the compiler does not know that a tile's load reads memory
    const int64_t whole = words.begin + (words.end - words.begin) / kTileWords * kTileWords;
    multiply_words<add>(m, n, {words.begin, whole}, a, b, c);
    if (add || whole > words.begin) return multiply_words<true>(m, n, {whole, words.end}, a, b, c);
    multiply_words<false>(m, n, {whole, words.end}, a, b, c);
  }

 private:
  // Rows that lie next to each other, word by word, as rows of words at `to`.
  static Strided transposed(int64_t m, WordRange words, Strided a, float* to) {
    constexpr int64_t kRow = kTile / kPair;
    require(a.row == 1 && words.end <= kRow, "what is transposed is a tile");
    for (int64_t i = 0; i < m; i += kTileRows) {
      for (int64_t l = words.begin; l < words.end; l += kTileWords) {
        V block[kTileWords];
#pragma GCC unroll 16
        for (int64_t r = 0; r < kTileWords; ++r) block[r] = load(a.data + i + (l + r) * a.col);
        transpose(block);
#pragma GCC unroll 16
        for (int64_t r = 0; r < kTileRows; ++r) store(to + (i + r) * kRow + l, block[r]);
      }
    }
    return {to, kRow, 1};
  }
};

}  // namespace

void attention_forward(const AttentionForward& call, const ForwardTask& task) {
  forward<Set, bf16>(call, task);
  release();
}
void attention_backward(const AttentionBackward& call, const BackwardTask& task) {
  backward<Set, bf16>(call, task);
  release();
}

}  // namespace drover::cpu::amx

#pragma GCC pop_options
