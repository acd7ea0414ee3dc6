// A frozen matrix (out,in) in a device's memory. How its elements lie there is its backend's own: only load_weight,
// linear, linear_dx and embedding (kernels/backend.h) touch them. What a weight says of itself is what fits
// it: how to allocate the rows that it multiplies, and where an adapter's copies for it may lie.
#pragma once
#include <cstdint>
#include <memory>
#include <vector>

#include "kernels/arena.h"
#include "kernels/base/quantised.h"

namespace drover {

// What elements of frozen weights are in memory. kernels/README.md lists what a further word needs in each backend.
enum class Format : uint8_t { f32, bf16, fp8, nf4 };

Format format_of(DType dtype);  // f32 and bf16 have one
constexpr bool is_dense(Format format) { return format == Format::f32 || format == Format::bf16; }

// What multiplies where a weight is codes: numbers that they are widened to, or fp8 codes of both operands
// (train.matmul, kernels/fp8_products.h).
enum class Products : uint8_t { widened, fp8 };

// How fp8 and nf4 weights are scaled, and of which rows and columns of tensors they consist: a scale belongs to a block
// of the whole tensor, wherever it is cut.
struct Scaling {
  ScaleBlocks blocks;   // fp8
  bool nested = false;  // nf4: double quantisation
  Rounding rounding = Rounding::none;
  int64_t col = 0, whole_cols = 0;  // of every part's tensor: the weight's first column, and all
  struct Part {
    int64_t row = 0, rows = 0;  // of its tensor
  };
  std::vector<Part> parts;  // one under another
  float largest_input = 0;  // of fp8 products: larger magnitudes of x are cut to it; 0: none are
};

struct WeightShape {
  int64_t out = 0, in = 0;
  Format format = Format::f32;
  int64_t adapter_rank = 0;  // Σ r of the low-rank terms that one adapter adds to its linear; 0: none does
  Scaling scaling = {};      // of a format that has scales
  Products products = Products::widened;  // fp8: of a shape that multiplies_in_fp8 takes
};

class Weight {
 public:
  explicit Weight(const WeightShape& shape) : shape_(shape) {}
  virtual ~Weight() = default;
  Weight(const Weight&) = delete;
  Weight& operator=(const Weight&) = delete;

  int64_t out() const { return shape_.out; }
  int64_t in() const { return shape_.in; }
  Format format() const { return shape_.format; }
  int64_t adapter_rank() const { return shape_.adapter_rank; }
  Products products() const { return shape_.products; }
  virtual int64_t bytes() const;  // of its elements and their scales: what a product reads

  // The pitch at which linear takes x fastest, and linear_dx dy, with the low-rank terms of an adapter of adapter_rank.
  // With any other pitch the result is the same. What lies between two rows of such tensors may be overwritten.
  virtual int64_t x_pitch() const { return in(); }
  virtual int64_t dy_pitch() const { return out(); }
  // Where the copies of one adapter's A (adapter_rank, in) and B (out, adapter_rank) are read fastest, zero at first,
  // and v (T, adapter_rank or more columns) of a dy. Empty: anywhere. Elsewhere the result is the same.
  virtual Tensor room_for_a() const { return {}; }
  virtual Tensor room_for_b() const { return {}; }
  virtual Tensor room_for_v(Tensor /*dy*/) const { return {}; }

 private:
  WeightShape shape_;
};

// Rows of plain elements, one under another, at any pitch.
class DenseWeight : public Weight {
 public:
  explicit DenseWeight(Tensor values, int64_t adapter_rank = 0);  // f32 | bf16
  const Tensor values;                                            // (out, in)
};

// A weight without room for more, uninitialised. The absmax of NF4 are worked out as it is loaded: an eighth of a byte
// more for two numbers than double quantisation takes, and nothing to work out for a product.
std::unique_ptr<Weight> lay_out_rows(Arena& arena, const WeightShape& shape);
DType dtype_of(Format format);  // of a dense weight's elements

}  // namespace drover
