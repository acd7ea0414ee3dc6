// Products by oneDNN's matmul primitives, of which there is one for each shape. A primitive takes milliseconds to build
// and a document may have any length: rows are multiplied in pieces of a few sizes, the last of them filled up, so that
// after some documents no primitive is built any more. Operands are f32 or bf16 as they lie, results f32.
// dnnl::error where the CPU lacks the dtype.
#pragma once
#include <memory>
#include <vector>

#include "kernels/backend.h"

namespace drover::cpu {

// Rows [begin, begin + count) of some, multiplied as if they were `size`: all but the last one are as many.
struct Piece {
  int64_t begin, count, size;
};
inline constexpr int64_t kPieceRows = 64;  // fewer are filled up, to 16, 32 or 64
// pitch: of the rows. Where they are wide, fewer than 16 are filled up.
std::vector<Piece> pieces_of(int64_t rows, int64_t pitch);
// Of so many rows with the last piece filled up.
inline int64_t in_pieces(int64_t rows) {
  const int64_t rest = rows % kPieceRows;
  return rows - rest + (rest == 0 ? 0 : rest <= 16 ? 16 : rest <= 32 ? 32 : 64);
}
// A piece's rows where they lie, or in `copy` with zeros behind them where they are fewer than its size.
Tensor filled(Tensor rows, const Piece& piece, std::vector<bf16>& copy);

class PrimitiveProduct {
 public:
  static constexpr int64_t kMost = 512;
  // threads: for what is counted, since oneDNN takes OpenMP's. most: of the primitives that are kept.
  explicit PrimitiveProduct(int threads, int64_t most = kMost);
  ~PrimitiveProduct();
  PrimitiveProduct(const PrimitiveProduct&) = delete;
  PrimitiveProduct& operator=(const PrimitiveProduct&) = delete;

  // What the primitives of a model's products with at most so many rows hold, and copies that are filled up.
  int64_t workspace_bytes(int64_t rows) const;

  struct Call {
    Trans ta, tb;
    float alpha;
    Tensor a, b;      // op(a) (m, k), op(b) (k, n); k > 0
    bool accumulate;  // to c
    Tensor c;         // (m, n), which overlaps neither
  };
  // c = alpha·op(a)·op(b) (+ c), by one primitive.
  void whole(const Call& call);
  // The same with op(a) = a, by rows of a in pieces. c has in_pieces(a.rows) rows: what lies behind a's is undefined.
  void by_rows(const Call& call);
  // The same with op(a) = aᵀ and op(b) = b, by their rows, which are the sum's index.
  void by_sums(const Call& call);

  int64_t built() const { return built_; }  // primitives, so far

 private:
  struct Primitive;
  struct Store;
  const Primitive& primitive(const Call& call);

  int64_t built_ = 0;
  std::unique_ptr<Store> store_;
  int threads_;
  int64_t most_;
  std::vector<bf16> left_, right_;  // rows that are filled up with zeros
};

}  // namespace drover::cpu
