#include "model/weight_loader.h"

#include <cmath>

#include "kernels/base/error.h"
#include "model/rope.h"

namespace drover {

WeightLoader::WeightLoader(const StageShape& shape, const Loading& loading)
    : shape_(shape), with_(loading), table_(weight_table(shape.config)) {
  for (const ParamSpec& spec : table_) by_name_.emplace(spec.name, &spec);
}

const ParamSpec& WeightLoader::spec_of(const std::string& name) const {
  const auto found = by_name_.find(name);
  if (found == by_name_.end()) fail(Fault::internal, "internal error: no weight is called {}", name);
  return *found->second;
}

Norm WeightLoader::norm(const std::string& name) {
  Norm n{with_.arena.tensor(shape_.config.hidden, 1, shape_.dtype), static_cast<float>(shape_.config.norm_eps)};
  read_to(with_.source, spec_of(name), 0, 0, n.weight, with_.backend);
  return n;
}

std::shared_ptr<const Weight> WeightLoader::vocabulary(const std::string& name) {
  Backend& b = with_.backend;
  const VocabularyShare share =
      vocabulary_share(shape_.config.vocab, shape_.placement.tp_rank, shape_.placement.tp_size);
  std::unique_ptr<Weight> made =
      b.make_weight(with_.arena, {share.count, shape_.config.hidden, format_of(shape_.dtype)});
  const int64_t padding = share.count - share.valid;
  if (padding > 0) b.load_weight(*made, share.valid, padding, [&](Tensor to) { b.zero(to); });
  const auto read = [&](Tensor to) { read_to(with_.source, spec_of(name), share.begin, 0, to, b); };
  if (share.valid > 0) b.load_weight(*made, 0, share.valid, read);
  return made;
}

LinearGroup WeightLoader::head(const std::shared_ptr<const Weight>& embedding) {
  const ModelConfig& c = shape_.config;
  return LinearGroup(c, c.layers, {Projection::head}, shape_.placement, with_.tp,
                     c.tied_head ? embedding : vocabulary("lm_head.weight"), with_.adapter);
}

LinearGroup WeightLoader::group(int64_t layer, std::vector<Projection> projections) {
  const int tp_rank = shape_.placement.tp_rank, tp_size = shape_.placement.tp_size;
  std::vector<LinearSlice> members;
  int64_t adapter_rank = 0;
  for (Projection p : projections) {
    const LinearShape linear = shape_of(shape_.config, p);
    const bool by_output = linear.split == Split::output;
    members.push_back({.spec = &spec_of(module_path(layer, p) + ".weight"),
                       .rows = by_output ? share_of(linear.out, tp_rank, tp_size) : Range{0, linear.out},
                       .cols = by_output ? Range{0, linear.in} : share_of(linear.in, tp_rank, tp_size)});
    if (with_.adapter != nullptr) adapter_rank += with_.adapter->rank_of(layer, p);
  }
  const FrozenLinear frozen(members, with_.source, {shape_.weights, shape_.products, shape_.dtype});
  std::unique_ptr<Weight> weight = with_.backend.make_weight(with_.arena, frozen.shape(adapter_rank));
  frozen.load(*weight, with_.backend);
  return LinearGroup(shape_.config, layer, projections, shape_.placement, with_.tp, std::move(weight), with_.adapter);
}

// The ranks of one stage read layer by layer side by side: what they share of a file's pages is then in their node's
// cache, and comes from the disk once and not once a rank. A rank that is far behind, or has failed, is waited for
// once.
void WeightLoader::keep_pace() {
  constexpr double kPatienceSeconds = 30;
  if (!in_step_) return;
  for (const auto& answer : with_.tp.roll_call("", kPatienceSeconds)) in_step_ &= answer.has_value();
}

Block WeightLoader::block(int64_t layer, size_t index) {
  keep_pace();
  const ModelConfig& c = shape_.config;
  const int tp_size = shape_.placement.tp_size;
  const std::string prefix = fmt::format("model.layers.{}.", layer);
  return {.attention_norm = norm(prefix + "input_layernorm.weight"),
          .qkv = group(layer, {Projection::q, Projection::k, Projection::v}),
          .o = group(layer, {Projection::o}),
          .mlp_norm = norm(prefix + "post_attention_layernorm.weight"),
          .gate_up = group(layer, {Projection::gate, Projection::up}),
          .down = group(layer, {Projection::down}),
          .attention = {c.heads / tp_size, c.kv_heads / tp_size, c.head_dim,
                        1.0f / std::sqrt(static_cast<float>(c.head_dim))},
          .index = index};
}

RopeTable WeightLoader::rope() {
  const int64_t half = shape_.config.head_dim / 2;
  const RopeTable table{with_.arena.tensor(shape_.max_positions, half, DType::f32),
                        with_.arena.tensor(shape_.max_positions, half, DType::f32)};
  if (table.cosine.where != Where::nowhere) {
    const RopeValues values = rope_values(shape_.config, shape_.max_positions);
    with_.backend.upload(values.cosine.data(), table.cosine);
    with_.backend.upload(values.sine.data(), table.sine);
  }
  return table;
}

}  // namespace drover
