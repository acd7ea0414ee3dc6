#include "model/weight_loader.h"

#include <cmath>

#include "kernels/base/error.h"
#include "model/rope.h"

namespace drover {

namespace {

// A block's linears, in the order of its members.
const std::vector<Projection> kGroups[] = {{Projection::q, Projection::k, Projection::v},
                                           {Projection::o},
                                           {Projection::gate, Projection::up},
                                           {Projection::down}};

}  // namespace

WeightLoader::WeightLoader(const StageShape& shape, const Loading& loading)
    : shape_(shape),
      with_(loading),
      table_(std::make_shared<const std::vector<ParamSpec>>(weight_table(shape.config))) {
  for (const ParamSpec& spec : *table_) by_name_.emplace(spec.name, &spec);
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

WeightLoader::Planned WeightLoader::planned(int64_t layer, const std::vector<Projection>& projections) const {
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
  FrozenLinear linear(members, with_.source, {shape_.weights, shape_.products, shape_.dtype, with_.threads});
  const WeightShape shape = linear.shape(adapter_rank);
  return {std::move(linear), shape};
}

LinearGroup WeightLoader::group(int64_t layer, size_t block, std::vector<Projection> projections) {
  auto [linear, shape] = planned(layer, projections);
  std::shared_ptr<const Weight> weight;
  if (with_.streamed != nullptr) {
    weight = with_.streamed->add(block, layer, std::move(linear), shape);
  } else {
    std::unique_ptr<Weight> made = with_.backend.make_weight(with_.arena, shape);
    linear.load(*made, with_.backend);
    weight = std::move(made);
  }
  return LinearGroup(shape_.config, layer, projections, shape_.placement, with_.tp, std::move(weight), with_.adapter);
}

void WeightLoader::make_ring() {
  std::vector<std::vector<WeightShape>> blocks;
  for (int64_t layer = shape_.placement.layer_begin; layer < shape_.placement.layer_end; ++layer) {
    blocks.emplace_back();
    for (const std::vector<Projection>& projections : kGroups)
      blocks.back().push_back(planned(layer, projections).shape);
  }
  with_.streamed->own(table_);
  with_.streamed->make_ring(blocks);
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
  const auto group_of = [&](size_t i) { return group(layer, index, kGroups[i]); };
  if (with_.streamed != nullptr && with_.adapter != nullptr) with_.adapter->pass_with_weights(layer);
  Block block{.attention_norm = norm(prefix + "input_layernorm.weight"),
              .qkv = group_of(0),
              .o = group_of(1),
              .mlp_norm = norm(prefix + "post_attention_layernorm.weight"),
              .gate_up = group_of(2),
              .down = group_of(3),
              .attention = {c.heads / tp_size, c.kv_heads / tp_size, c.head_dim,
                            1.0f / std::sqrt(static_cast<float>(c.head_dim))},
              .index = index};
  if (with_.streamed != nullptr) with_.streamed->keep(index);
  return block;
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
