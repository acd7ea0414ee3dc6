#include "trainer/report/adapter_change.h"

#include <algorithm>
#include <array>
#include <charconv>
#include <cmath>

#include "kernels/base/error.h"
#include "kernels/base/log.h"
#include "trainer/export/adapter_effect.h"

namespace drover {

namespace {

constexpr std::array kOrder = {"q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"};
constexpr int64_t kPieceNumbers = int64_t{1} << 22;
constexpr int64_t kMostLayers = 4096;
constexpr double kWorthSaying = 4e9;  // bytes

size_t order_of(const std::string& module) {
  return static_cast<size_t>(std::ranges::find(kOrder, module) - kOrder.begin());
}

LinearChange linear_of(const std::string& path, double squared) {
  constexpr std::string_view kLayers = "layers.";
  LinearChange linear{.path = path, .module = path.substr(path.rfind('.') + 1), .change = std::sqrt(squared)};
  if (const size_t at = path.find(kLayers); at != path.npos)
    std::from_chars(path.data() + at + kLayers.size(), path.data() + path.size(), linear.layer);
  if (linear.layer >= kMostLayers) linear.layer = -1;
  return linear;
}

double norm_of(BaseWeights& base, const std::string& name) {
  const std::vector<int64_t> shape = base.shape(name);
  const int64_t rows = shape.front(), cols = shape.size() > 1 ? shape[1] : 1;
  const int64_t piece = std::max<int64_t>(1, kPieceNumbers / cols);
  std::vector<float> values(static_cast<size_t>(std::min(piece, rows) * cols));
  double squares = 0;
  for (int64_t row = 0; row < rows; row += piece) {
    const int64_t count = std::min(piece, rows - row);
    base.read(name, row, count, 0, cols, DType::f32, values.data());
    for (size_t i = 0; i < static_cast<size_t>(count * cols); ++i) squares += double{values[i]} * values[i];
  }
  return std::sqrt(squares);
}

double bytes_of(BaseWeights& base, const std::vector<LinearChange>& linears) {
  double bytes = 0;
  for (const LinearChange& linear : linears) {
    double numbers = 1;
    for (const int64_t size : base.shape(linear.path + ".weight")) numbers *= static_cast<double>(size);
    bytes += 4 * numbers;
  }
  return bytes;
}

void read_norms(AdapterChange& change, const fs::path& path, BaseNorms norms) {
  ModelDirectory directory(path);
  BaseWeights base(directory);
  const double bytes = bytes_of(base, change.linears);
  if (norms == BaseNorms::where_quick && bytes > kQuickBytes) {
    change.without_base = fmt::format(
        "the adapted weights of {} are {:.0f} GB in fp32, which takes long to read; --base-norms always reads them",
        path.string(), bytes / 1e9);
    return;
  }
  if (bytes > kWorthSaying)
    log::info("reading {:.0f} GB of {} for the norms of its weights", bytes / 1e9, path.string());
  for (LinearChange& linear : change.linears) linear.base = norm_of(base, linear.path + ".weight");
}

}  // namespace

std::vector<std::string> AdapterChange::modules() const {
  std::vector<std::string> names;
  for (const LinearChange& linear : linears) {
    if (std::ranges::find(names, linear.module) == names.end()) names.push_back(linear.module);
  }
  std::ranges::stable_sort(names, {}, order_of);
  return names;
}

int64_t AdapterChange::layers() const {
  int64_t highest = -1;
  for (const LinearChange& linear : linears) highest = std::max(highest, linear.layer);
  return highest + 1;
}

AdapterChange adapter_change(const fs::path& adapter, const fs::path& base, BaseNorms norms) {
  AdapterChange change;
  for (const auto& [path, squared] : squared_effects(AdapterFile(adapter)))
    change.linears.push_back(linear_of(path, squared));
  std::ranges::stable_sort(change.linears, {}, [](const LinearChange& l) {
    return std::pair(l.layer < 0 ? std::numeric_limits<int64_t>::max() : l.layer, order_of(l.module));
  });
  if (norms == BaseNorms::never) {
    change.without_base = "--base-norms never";
    return change;
  }
  try {
    read_norms(change, base, norms);
  } catch (const Error& error) {
    for (LinearChange& linear : change.linears) linear.base = kHole;
    change.without_base = error.what();
  }
  return change;
}

}  // namespace drover
