// What is known of one call of a Backend's op before it runs, and who gets to see it: counting, profiling and
// planning are observers.
#pragma once
#include <cstdint>
#include <string_view>

#include "kernels/tensor.h"

namespace drover {

enum class Format : uint8_t;    // weight.h
enum class Products : uint8_t;  // weight.h

struct Shape {
  int64_t rows = 0, cols = 0;
  bool operator==(const Shape&) const = default;
};

struct OpCall {
  std::string_view op;  // the name of Backend's method
  // A product's operands as they lie in memory; of attention q, and the width of k without rows; of another op the
  // tensor that it works on, and none.
  Shape a, b;
  DType dtype = DType::f32;  // of a
  Format format{};           // of a product's frozen weight
  Products products{};       // how it is multiplied
  bool generates = false;    // a linear summed by row, or attention over keys in blocks
  int64_t flops = 0;         // additions, multiplications and the like of the op's equation
  int64_t bytes = 0;         // of its operands, read once and written once: the least that it can move
  bool is_part = false;      // of another op's call, which this backend carries out by several ops
  int parts = 0;             // the ops by which this one was carried out; known when it has ended

  bool is_product() const { return b.rows > 0; }
};

// Sees an op before and after it runs (or is enqueued), on the thread that calls it. The parts of a call begin
// and end within it.
class OpObserver {
 public:
  virtual ~OpObserver() = default;
  virtual void begin(const OpCall& call) = 0;
  virtual void end(const OpCall& call) = 0;  // not after an op that threw
};

}  // namespace drover
