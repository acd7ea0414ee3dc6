// Quantised weights as a model directory stores them. An input is the quantization_config of a config.json, a NUL, and
// a safetensors file.
#include "model/files/quantised_tensor.h"

#include <cstring>

#include "kernels/base/nf4.h"
#include "tests/fuzz/fuzz.h"

using namespace drover;

namespace {

struct Window {
  int64_t row, rows, col, cols;
};

std::vector<float> values(const QuantisedTensor& weight, const Window& w) {
  std::vector<float> result(static_cast<size_t>(w.rows * w.cols));
  if (weight.scaling().kind == StoredScaling::Kind::nf4) {
    dequantise(weight.read_nf4(w.row, w.rows, w.col, w.cols), result.data());
  } else {
    dequantise(weight.read_fp8(w.row, w.rows, w.col, w.cols), result.data());
  }
  return result;
}

// A window of the weight has the bits that it has in the whole.
void check_window(const QuantisedTensor& weight, const std::vector<float>& whole, const Window& w) {
  const std::vector<float> part = values(weight, w);
  for (int64_t i = 0; i < w.rows; ++i) {
    const auto* theirs = whole.data() + (w.row + i) * weight.cols() + w.col;
    fuzz::holds(std::memcmp(part.data() + i * w.cols, theirs, static_cast<size_t>(w.cols) * sizeof(float)) == 0,
                "a window has the bits of the whole");
  }
}

void read(const QuantisedTensor& weight, size_t file_bytes) {
  const int64_t rows = weight.rows(), cols = weight.cols();
  fuzz::holds(rows >= 0 && cols >= 0, "sizes are not negative");
  fuzz::holds(cols == 0 || rows <= static_cast<int64_t>(2 * file_bytes) / cols, "every code is in the file");
  const std::vector<float> whole = values(weight, {0, rows, 0, cols});
  if (rows == 0 || cols == 0) return;
  const int64_t block = weight.scaling().kind == StoredScaling::Kind::nf4 ? kNf4Block : 1;
  const int64_t middle = cols / block / 2 * block;
  check_window(weight, whole, {rows - 1, 1, 0, cols});
  check_window(weight, whole, {rows / 2, rows - rows / 2, middle, cols - middle});
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const auto [config, weights] = fuzz::two_parts(data, size);
  const fs::path path = fuzz::written("model.safetensors", weights);
  return fuzz::accept({Fault::bad_data}, [&, &config = config] {
    const auto read_config =
        parse_quantisation(Json{{"quantization_config", parse_json(config, "config.json")}}, "config.json");
    if (!read_config) return;
    const SafetensorsFile file(path);
    const auto find = [&](const std::string& name) -> std::optional<PlacedTensor> {
      const StoredTensor* found = file.find(name);
      if (found == nullptr) return std::nullopt;
      return PlacedTensor{found, &file};
    };
    for (const StoredTensor& tensor : file.tensors()) {
      if (is_quantisation_data(tensor.name)) continue;
      const auto opened = QuantisedTensor::open(tensor.name, *read_config, find);
      if (opened) read(*opened, file.file_bytes());
    }
  });
}
