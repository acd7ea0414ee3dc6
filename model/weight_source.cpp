#include "model/weight_source.h"

#include "kernels/base/error.h"

namespace drover {

Fp8Slice WeightSource::read_fp8(const ParamSpec& spec, Range, Range) {
  fail(Fault::internal, "internal error: {} is not stored as fp8", spec.name);
}

Nf4Slice WeightSource::read_nf4(const ParamSpec& spec, Range, Range) {
  fail(Fault::internal, "internal error: {} is not stored as NF4", spec.name);
}

void read_to(WeightSource& source, const ParamSpec& spec, int64_t row, int64_t col, Tensor to, Backend& backend) {
  if (to.where == Where::nowhere) return;
  if (to.where == Where::host && to.contiguous()) return source.read(spec, row, col, to);
  const auto rows = std::make_unique_for_overwrite<char[]>(static_cast<size_t>(to.bytes()));
  source.read(spec, row, col, matrix(static_cast<void*>(rows.get()), to.rows, to.cols, to.dtype));
  backend.upload(rows.get(), to);
}

}  // namespace drover
