#include "model/adapter.h"

#include <algorithm>
#include <cmath>

#include "kernels/base/error.h"
#include "kernels/base/hash.h"

namespace drover {

AdapterLayout empty_layout(const ModelConfig& config) { return AdapterLayout(static_cast<size_t>(config.layers) + 1); }

AdapterLayout adapter_layout(const ModelConfig& config,
                             const std::function<std::optional<LowRankSpec>(const std::string& path)>& match) {
  AdapterLayout layout = empty_layout(config);
  bool any = false;
  for (const auto [layer, p] : linears_of(config)) {
    auto& spec = layout[static_cast<size_t>(layer)][static_cast<size_t>(p)] = match(module_path(layer, p));
    any = any || spec.has_value();
  }
  if (!any) {
    fail(Fault::bad_data,
         "the adapter's target_modules match no linear of this model; allowed are all-linear, or names among q_proj, "
         "k_proj, v_proj, o_proj, gate_proj, up_proj, down_proj and lm_head, or a regex on paths like {}",
         module_path(0, Projection::q));
  }
  return layout;
}

int64_t trainable_parameters(const ModelConfig& config, const AdapterLayout& layout) {
  int64_t sum = 0;
  for (const auto [layer, p] : linears_of(config)) {
    const auto& spec = layout[static_cast<size_t>(layer)][static_cast<size_t>(p)];
    if (spec) sum += spec->r * (shape_of(config, p).in + shape_of(config, p).out);
  }
  return sum;
}

int64_t lowest_adapted_layer(const AdapterLayout& layout) {
  for (size_t layer = 0; layer + 1 < layout.size(); ++layer) {
    for (const auto& spec : layout[layer]) {
      if (spec) return static_cast<int64_t>(layer);
    }
  }
  return static_cast<int64_t>(layout.size()) - 1;
}

namespace {

bool holds(const Placement& placement, const LinearPlace& linear) {
  if (linear.projection == Projection::head) return placement.last;
  return placement.layer_begin <= linear.layer && linear.layer < placement.layer_end;
}

// A rank's rows and columns of a linear's weight.
std::pair<Range, Range> part_of(const LinearShape& shape, const Placement& placement) {
  const Range all_out{0, shape.out}, all_in{0, shape.in};
  if (shape.split == Split::input) return {all_out, share_of(shape.in, placement.tp_rank, placement.tp_size)};
  if (shape.split == Split::output) return {share_of(shape.out, placement.tp_rank, placement.tp_size), all_in};
  const VocabularyShare share = vocabulary_share(shape.out, placement.tp_rank, placement.tp_size);
  return {Range{std::min(share.begin, shape.out), share.valid}, all_in};
}

}  // namespace

std::vector<FactorSlice> factor_slices(const ModelConfig& config, const AdapterLayout& layout,
                                       const Placement& placement) {
  std::vector<FactorSlice> factors;
  for (const LinearPlace& linear : linears_of(config)) {
    const auto [layer, p] = linear;
    const auto& spec = layout[static_cast<size_t>(layer)][static_cast<size_t>(p)];
    if (!spec || !holds(placement, linear)) continue;
    const LinearShape shape = shape_of(config, p);
    const auto [out, in] = part_of(shape, placement);
    const auto add = [&, layer = layer, p = p](Factor factor, bool whole, int64_t rows, int64_t cols, Range row,
                                               Range col) {
      FactorSlice f;
      f.name = fmt::format("{}{}", module_path(layer, p), suffix_of(factor));
      f.layer = layer, f.projection = p, f.factor = factor, f.whole = whole;
      f.group = static_cast<int>(factor);
      f.rows = rows, f.row_begin = row.begin, f.row_count = row.count;
      f.cols = cols, f.col_begin = col.begin, f.col_count = col.count;
      factors.push_back(f);
    };
    const Range rank{0, spec->r};
    add(Factor::a, shape.split != Split::input, spec->r, shape.in, rank, in);
    add(Factor::b, shape.split == Split::input, shape.out, spec->r, out, rank);
  }
  lay_out(std::span(factors));
  return factors;
}

namespace {

size_t position_of(int64_t layer, Projection projection, Factor factor) {
  const size_t linear = static_cast<size_t>(layer) * (kProjections + 1) + static_cast<size_t>(projection);
  return linear * kFactors.size() + static_cast<size_t>(factor);
}

}  // namespace

AdapterSet::AdapterSet(const AdapterLayout& layout, std::vector<FactorSlice> factors, Tensor parameters,
                       Tensor gradients, DType dtype, Backend& backend, Arena& arena)
    : parameters(parameters),
      gradients(gradients),
      backend_(backend),
      layout_(layout),
      arena_(arena),
      dtype_(dtype),
      factors_(std::move(factors)),
      positions_(layout.size() * (kProjections + 1) * kFactors.size(), -1) {
  for (size_t i = 0; i < factors_.size(); ++i) {
    const FactorSlice& f = factors_[i];
    positions_[position_of(f.layer, f.projection, f.factor)] = static_cast<int64_t>(i);
  }
}

AdapterSet::AdapterSet(const AdapterLayout& layout, std::vector<FactorSlice> factors, DType dtype, Backend& backend,
                       Arena& arena)
    : AdapterSet(layout, factors, arena.tensor(size_of(std::span<const FactorSlice>(factors)), 1, DType::f32), {},
                 dtype, backend, arena) {}

const FactorSlice* AdapterSet::find(int64_t layer, Projection projection, Factor factor) const {
  const int64_t at = positions_[position_of(layer, projection, factor)];
  return at < 0 ? nullptr : &factors_[static_cast<size_t>(at)];
}

int64_t AdapterSet::rank_of(int64_t layer, Projection projection) const {
  const auto& spec = layout_[static_cast<size_t>(layer)][static_cast<size_t>(projection)];
  return spec ? spec->r : 0;
}

KaimingUniform::KaimingUniform(uint64_t seed, const std::string& name, int64_t fan_in)
    : key_(PhiloxKey::of(sha256_prefix(fmt::format("{}:{}", seed, name)))),
      bound_(1.0f / std::sqrt(static_cast<float>(fan_in))) {}

void AdapterSet::initialise(uint64_t seed) {
  load([seed](const FactorSlice& f, float* values) {
    if (f.factor == Factor::b) {
      std::fill_n(values, f.size(), 0.0f);
      return;
    }
    const KaimingUniform draw(seed, f.name, f.cols);
    for (int64_t row = 0; row < f.row_count; ++row) {
      for (int64_t col = 0; col < f.col_count; ++col)
        *values++ = draw.at((f.row_begin + row) * f.cols + f.col_begin + col);
    }
  });
}

void AdapterSet::load(const FactorReader& read) {
  std::vector<float> values;
  for (const FactorSlice& f : factors_) {
    values.resize(static_cast<size_t>(f.size()));
    read(f, values.data());
    backend_.upload(values.data(), view(parameters, f));
  }
  refresh();
}

Tensor AdapterSet::copy_of(const FactorSlice& f, Tensor room) {
  if (room.empty()) {
    if (copies_.empty()) copies_ = dtype_ == DType::f32 ? parameters : arena_.tensor(parameters.rows, 1, dtype_);
    return view(copies_, f);
  }
  require(room.rows == f.row_count && room.cols == f.col_count, "a factor's copy has its shape");
  const auto passing = passing_.find(f.layer);
  (passing == passing_.end() ? placed_ : passing->second).push_back({view(parameters, f), room});
  return room;
}

void AdapterSet::refresh() {
  if (!copies_.empty() && copies_.data != parameters.data) backend_.copy(parameters, copies_);
  backend_.copy_all(placed_);
}

void AdapterSet::refresh(int64_t layer) {
  const auto passing = passing_.find(layer);
  if (passing != passing_.end() && !passing->second.empty()) backend_.copy_all(passing->second);
}

}  // namespace drover
