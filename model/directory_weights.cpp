#include "model/directory_weights.h"

namespace drover {

void DirectoryWeights::read(const ParamSpec& spec, int64_t row, int64_t col, Tensor to, Backend& backend) {
  if (staging_.size() < static_cast<size_t>(to.bytes())) {
    std::vector<char>().swap(staging_);  // first, so that the old and the new buffer are never held together
    staging_.resize(static_cast<size_t>(to.bytes()));
  }
  directory_.read(spec.name, row, to.rows, col, to.cols, to.dtype, staging_.data());
  backend.upload(staging_.data(), to);
}

}  // namespace drover
