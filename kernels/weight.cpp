#include "kernels/weight.h"

#include "kernels/quantised_weight.h"

namespace drover {

Format format_of(DType dtype) {
  require(dtype == DType::f32 || dtype == DType::bf16, "a frozen weight is f32 or bf16");
  return dtype == DType::f32 ? Format::f32 : Format::bf16;
}

DType dtype_of(Format format) {
  require(is_dense(format), "the elements of a dense weight are of a dtype");
  return format == Format::f32 ? DType::f32 : DType::bf16;
}

int64_t Weight::bytes() const { return out() * in() * size_of(dtype_of(format())); }

DenseWeight::DenseWeight(Tensor values, int64_t adapter_rank)
    : Weight({values.rows, values.cols, format_of(values.dtype), adapter_rank}), values(values) {}

std::unique_ptr<Weight> lay_out_rows(Arena& arena, const WeightShape& shape) {
  if (!is_dense(shape.format)) {
    WeightShape plain = shape;
    plain.scaling.nested = false;
    return lay_out_quantised(arena, plain);
  }
  return std::make_unique<DenseWeight>(arena.tensor(shape.out, shape.in, dtype_of(shape.format)), shape.adapter_rank);
}

}  // namespace drover
