#include "kernels/backend.h"

namespace drover {

namespace {

struct Arrived : Reading {
  std::vector<double> numbers;
  std::span<const double> values() override { return numbers; }
};

}  // namespace

std::unique_ptr<Reading> Backend::read_later(Tensor from) {
  auto reading = std::make_unique<Arrived>();
  reading->numbers.resize(static_cast<size_t>(from.size()));
  require(from.dtype == DType::f64, "what is read later is f64");
  download(from, reading->numbers.data());
  return reading;
}

}  // namespace drover
