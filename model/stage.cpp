#include "model/stage.h"

#include <cmath>
#include <numbers>

#include "kernels/base/error.h"

namespace drover {

namespace {

std::vector<float> inverse_frequencies(const ModelConfig& c) {
  std::vector<float> result;
  for (int64_t i = 0; i < c.head_dim; i += 2) {
    float f = 1.0f / std::pow(static_cast<float>(c.rope_theta), static_cast<float>(i) / static_cast<float>(c.head_dim));
    if (c.rope_scaling) {
      const RopeScaling& s = *c.rope_scaling;
      const float factor = static_cast<float>(s.factor), low = static_cast<float>(s.low_freq_factor), high = static_cast<float>(s.high_freq_factor);
      const float original = static_cast<float>(s.original_max_positions);
      const float wavelength = 2 * std::numbers::pi_v<float> / f;
      if (wavelength > original / low) {
        f = f / factor;
      } else if (wavelength >= original / high) {
        const float smooth = (original / wavelength - low) / (high - low);
        f = (1 - smooth) * f / factor + smooth * f;
      }
    }
    result.push_back(f);
  }
  return result;
}

// The ranks of one stage read layer by layer side by side: what they share of a file's pages is then in their node's cache, and comes from the disk once and not
// once a rank. A rank that is far behind, or has failed, is waited for once.
class Pace {
 public:
  explicit Pace(Communicator& tp) : tp_(tp) {}
  void keep() {
    if (!kept_) return;
    for (const auto& answer : tp_.roll_call("", kPatienceSeconds)) kept_ &= answer.has_value();
  }

 private:
  static constexpr double kPatienceSeconds = 30;
  Communicator& tp_;
  bool kept_ = true;
};

}  // namespace

RopeValues rope_values(const ModelConfig& config, int64_t positions) {
  const std::vector<float> frequencies = inverse_frequencies(config);
  RopeValues v;
  v.cosine.reserve(frequencies.size() * static_cast<size_t>(positions));
  v.sine.reserve(v.cosine.capacity());
  for (int64_t p = 0; p < positions; ++p) {
    for (float f : frequencies) {
      const float angle = static_cast<float>(p) * f;
      v.cosine.push_back(std::cos(angle));
      v.sine.push_back(std::sin(angle));
    }
  }
  return v;
}

Stage::Stage(const ModelConfig& config, const Placement& placement, DType dtype, int64_t max_positions, Communicator& tp, Backend& backend,
             Arena& weights, WeightSource& source, AdapterSet* adapter)
    : config_(config),
      placement_(placement),
      dtype_(dtype),
      lowest_adapted_layer_(adapter == nullptr ? config.layers : lowest_adapted_layer(adapter->layout())),
      tp_(&tp),
      share_(vocabulary_share(config.vocab, placement.tp_rank, placement.tp_size)) {
  std::vector<ParamSpec> table = weight_table(config);
  const auto spec_of = [&](const std::string& name) -> const ParamSpec& {
    for (const ParamSpec& spec : table) {
      if (spec.name == name) return spec;
    }
    fail(Exit::internal, "internal error: no weight is called {}", name);
  };
  const auto vocabulary = [&](const std::string& name) {
    Tensor t = weights.tensor(share_.count, config.hidden, dtype);
    backend.zero(t);
    if (share_.valid > 0) source.read(spec_of(name), share_.begin, 0, t.rows_from(0, share_.valid), backend);
    return t;
  };
  const auto norm = [&](const std::string& name) {
    Norm n{weights.tensor(config.hidden, 1, dtype), static_cast<float>(config.norm_eps)};
    source.read(spec_of(name), 0, 0, n.weight, backend);
    return n;
  };
  const int tp_rank = placement.tp_rank, tp_size = placement.tp_size;
  const auto group = [&](int64_t layer, std::vector<Projection> projections) {
    int64_t out = 0, in = 0, rank = 0;
    std::vector<Range> rows, cols;
    for (Projection p : projections) {
      const LinearShape shape = shape_of(config, p);
      rows.push_back(shape.split == Split::output ? share_of(shape.out, tp_rank, tp_size) : Range{0, shape.out});
      cols.push_back(shape.split == Split::output ? Range{0, shape.in} : share_of(shape.in, tp_rank, tp_size));
      out += rows.back().count;
      in = cols.back().count;
      if (adapter != nullptr) rank += adapter->rank_of(layer, p);
    }
    const int64_t strip = backend.strip(rank);
    Tensor whole = weights.tensor(out + strip, in, dtype, strip), weight = whole.rows_from(0, out);
    if (strip > 0) {
      backend.zero(whole.rows_from(out, strip).with_margin());
      backend.zero(weight.columns(in, strip));
    }
    int64_t row = 0;
    for (size_t i = 0; i < projections.size(); ++i) {
      source.read(spec_of(module_path(layer, projections[i]) + ".weight"), rows[i].begin, cols[i].begin, weight.rows_from(row, rows[i].count),
                  backend);
      row += rows[i].count;
    }
    return LinearGroup(config, layer, projections, placement, tp, weight, strip, adapter);
  };

  if (placement.first) embedding_ = vocabulary("model.embed_tokens.weight");
  Pace pace(tp);
  for (int64_t layer = placement.layer_begin; layer < placement.layer_end; ++layer) {
    pace.keep();
    const std::string prefix = fmt::format("model.layers.{}.", layer);
    Block block{.attention_norm = norm(prefix + "input_layernorm.weight"),
                .qkv = group(layer, {Projection::q, Projection::k, Projection::v}),
                .o = group(layer, {Projection::o}),
                .mlp_norm = norm(prefix + "post_attention_layernorm.weight"),
                .gate_up = group(layer, {Projection::gate, Projection::up}),
                .down = group(layer, {Projection::down}),
                .attention = {config.heads / tp_size, config.kv_heads / tp_size, config.head_dim,
                              1.0f / std::sqrt(static_cast<float>(config.head_dim))},
                .index = blocks_.size()};
    blocks_.push_back(std::move(block));
  }
  if (placement.last) {
    Norm final_norm = norm("model.norm.weight");
    if (config.tied_head && embedding_.empty()) embedding_ = vocabulary("model.embed_tokens.weight");
    head_ = Head{final_norm, config.tied_head ? embedding_ : vocabulary("lm_head.weight"), share_, &tp};
  }

  rope_ = {weights.tensor(max_positions, config.head_dim / 2, DType::f32), weights.tensor(max_positions, config.head_dim / 2, DType::f32)};
  if (rope_.cosine.where != Where::nowhere) {
    const RopeValues values = rope_values(config, max_positions);
    backend.upload(values.cosine.data(), rope_.cosine);
    backend.upload(values.sine.data(), rope_.sine);
  }
}

void Stage::embed(Context& ctx, Tensor x) const {
  ctx.backend.embedding(ctx.ids, embedding_, share_.begin, share_.valid, x);
  tp_->all_reduce(x);
}

Stage::Saved Stage::saved(Arena& arena, int64_t tokens, KeepPolicy keep) const {
  Saved saved{.keep = keep, .blocks = {}};
  for (const Block& block : blocks_) {
    if (layer_of(block) < lowest_adapted_layer_) continue;
    saved.blocks.push_back(keep == KeepPolicy::all ? block.saved(arena, tokens, dtype_)
                                                   : Block::Saved{.x = arena.tensor(tokens, config_.hidden, dtype_)});
  }
  return saved;
}

Task Stage::forward(Context& ctx, Tensor x, const Saved& saved) const {
  const size_t first_kept = blocks_.size() - saved.blocks.size();
  for (const Block& block : blocks_) {
    Frame frame(ctx.scratch);
    Block::Saved s;
    const bool kept = block.index >= first_kept, input_only = kept && saved.keep == KeepPolicy::inputs;
    if (kept) s = saved.blocks[block.index - first_kept].rows_from(ctx.begin, x.rows);
    if (input_only) ctx.backend.copy(x, s.x);
    if (!kept || input_only) s = block.saved(ctx.scratch, x.rows, dtype_);
    co_await block.forward(ctx, x, s);
  }
}

Task Stage::backward(Context& ctx, Tensor dx, const Saved& saved) const {
  const size_t first_kept = blocks_.size() - saved.blocks.size();
  for (size_t i = blocks_.size(); i-- > first_kept;) {
    const Block& block = blocks_[i];
    Frame frame(ctx.scratch);
    Block::Saved s = saved.blocks[i - first_kept].rows_from(ctx.begin, dx.rows);
    if (saved.keep == KeepPolicy::inputs) {
      const Tensor x = frame.tensor(dx.rows, dx.cols, dtype_);
      ctx.backend.copy(s.x, x);
      s = block.saved(ctx.scratch, dx.rows, dtype_);
      co_await block.forward(ctx, x, s);
    }
    const Reach reach = layer_of(block) == lowest_adapted_layer_ ? lowest_adapted_group(block) : Reach::input;
    co_await block.backward(ctx, dx, s, reach);
  }
}

}  // namespace drover
