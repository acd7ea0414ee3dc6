#include "model/adapter.h"

#include <cmath>

#include "kernels/base/error.h"
#include "kernels/base/hash.h"

namespace drover {

AdapterLayout adapter_layout(const ModelConfig& config, const std::function<std::optional<LowRankSpec>(const std::string& path)>& match) {
  AdapterLayout layout(static_cast<size_t>(config.layers));
  bool any = false;
  for (int64_t layer = 0; layer < config.layers; ++layer) {
    for (Projection p : kAllProjections) {
      auto& spec = layout[static_cast<size_t>(layer)][static_cast<size_t>(p)] = match(module_path(layer, p));
      any = any || spec.has_value();
    }
  }
  if (!any) {
    fail(Exit::bad_data,
         "the adapter's target_modules match no linear of this model; allowed are all-linear, or names among q_proj, k_proj, v_proj, o_proj, "
         "gate_proj, up_proj, down_proj, or a regex on paths like {}",
         module_path(0, Projection::q));
  }
  return layout;
}

int64_t trainable_parameters(const ModelConfig& config, const AdapterLayout& layout) {
  int64_t sum = 0;
  for (const auto& layer : layout) {
    for (Projection p : kAllProjections) {
      const auto& spec = layer[static_cast<size_t>(p)];
      if (spec) sum += spec->r * (shape_of(config, p).in + shape_of(config, p).out);
    }
  }
  return sum;
}

int64_t lowest_adapted_layer(const AdapterLayout& layout) {
  for (size_t layer = 0; layer < layout.size(); ++layer) {
    for (const auto& spec : layout[layer]) {
      if (spec) return static_cast<int64_t>(layer);
    }
  }
  return static_cast<int64_t>(layout.size());
}

AdapterSet::AdapterSet(const ModelConfig& config, const AdapterLayout& layout, const Placement& placement, DType dtype, Backend& backend,
                       Arena& adapter, Arena* optimizer)
    : backend_(backend), layout_(layout) {
  std::vector<FactorSlice> whole, split;
  for (int64_t layer = placement.layer_begin; layer < placement.layer_end; ++layer) {
    for (Projection p : kAllProjections) {
      const auto& spec = layout[static_cast<size_t>(layer)][static_cast<size_t>(p)];
      if (!spec) continue;
      const LinearShape shape = shape_of(config, p);
      const bool by_output = shape.split == Split::output;
      const Range out = by_output ? share_of(shape.out, placement.tp_rank, placement.tp_size) : Range{0, shape.out};
      const Range in = by_output ? Range{0, shape.in} : share_of(shape.in, placement.tp_rank, placement.tp_size);
      const std::string path = module_path(layer, p);
      const auto name = [&](Factor factor) { return fmt::format("{}{}", path, suffix_of(factor)); };
      FactorSlice a{name(Factor::a), layer, p, Factor::a, spec->r, shape.in, 0, spec->r, in.begin, in.count, 0, by_output};
      FactorSlice b{name(Factor::b), layer, p, Factor::b, shape.out, spec->r, out.begin, out.count, 0, spec->r, 0, !by_output};
      (by_output ? whole : split).push_back(a);
      (by_output ? split : whole).push_back(b);
    }
  }
  for (auto* region : {&whole, &split}) {
    for (FactorSlice& f : *region) {
      f.offset = size_;
      size_ += f.size();
      factors_.push_back(f);
    }
    if (region == &whole) whole_size_ = size_;
  }
  parameters = adapter.tensor(size_, 1, DType::f32);
  if (backend.traits().strip_multiple == 0) copies = dtype == DType::f32 ? parameters : adapter.tensor(size_, 1, dtype);
  if (optimizer == nullptr) return;
  gradients = optimizer->tensor(size_, 1, DType::f32);
  moment1 = optimizer->tensor(size_, 1, DType::f32);
  moment2 = optimizer->tensor(size_, 1, DType::f32);
  backend_.zero(gradients);
  backend_.zero(moment1);
  backend_.zero(moment2);
}

const FactorSlice* AdapterSet::find(int64_t layer, Projection projection, Factor factor) const {
  for (const FactorSlice& f : factors_) {
    if (f.layer == layer && f.projection == projection && f.factor == factor) return &f;
  }
  return nullptr;
}

int64_t AdapterSet::rank_of(int64_t layer, Projection projection) const {
  const auto& spec = layout_[static_cast<size_t>(layer)][static_cast<size_t>(projection)];
  return spec ? spec->r : 0;
}

Tensor AdapterSet::view(Tensor flat, const FactorSlice& f) const {
  Tensor t = flat.rows_from(f.offset, f.size());
  t.rows = f.row_count;
  t.cols = t.pitch = f.col_count;
  return t;
}

std::vector<AdapterSet::LayerRun> AdapterSet::layer_runs() const {
  std::vector<LayerRun> runs;
  for (const FactorSlice& f : factors_) {
    if (runs.empty() || runs.back().layer != f.layer || runs.back().whole != f.whole) runs.push_back({f.layer, f.offset, 0, f.whole});
    runs.back().size += f.size();
  }
  return runs;
}

KaimingUniform::KaimingUniform(uint64_t seed, const std::string& name, int64_t fan_in)
    : key_(PhiloxKey::of(sha256_prefix(fmt::format("{}:{}", seed, name)))), bound_(1.0f / std::sqrt(static_cast<float>(fan_in))) {}

void AdapterSet::initialise(uint64_t seed) {
  load([seed](const FactorSlice& f, float* values) {
    if (f.factor == Factor::b) {
      std::fill_n(values, f.size(), 0.0f);
      return;
    }
    const KaimingUniform draw(seed, f.name, f.cols);
    for (int64_t row = 0; row < f.row_count; ++row) {
      for (int64_t col = 0; col < f.col_count; ++col) *values++ = draw.at((f.row_begin + row) * f.cols + f.col_begin + col);
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

void AdapterSet::place(const FactorSlice& f, Tensor copy) {
  require(copy.rows == f.row_count && copy.cols == f.col_count, "a factor's copy has its shape");
  placed_.push_back({view(parameters, f), copy});
}

void AdapterSet::refresh() {
  if (!copies.empty() && copies.data != parameters.data) backend_.copy(parameters, copies);
  backend_.copy_all(placed_);
}

}  // namespace drover
