#include "model/weight_table.h"

#include <algorithm>

#include "kernels/base/error.h"

namespace drover {

namespace {
constexpr std::array<const char*, kProjections> kModule = {"self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj",
                                                           "self_attn.o_proj", "mlp.gate_proj",    "mlp.up_proj",
                                                           "mlp.down_proj"};
}

LinearShape shape_of(const ModelConfig& c, Projection projection) {
  switch (projection) {
    case Projection::q: return {c.heads * c.head_dim, c.hidden, Split::output};
    case Projection::k:
    case Projection::v: return {c.kv_heads * c.head_dim, c.hidden, Split::output};
    case Projection::o: return {c.hidden, c.heads * c.head_dim, Split::input};
    case Projection::gate:
    case Projection::up: return {c.ffn, c.hidden, Split::output};
    case Projection::down: return {c.hidden, c.ffn, Split::input};
    case Projection::head: return {c.vocab, c.hidden, Split::vocabulary};
  }
  fail(Fault::internal, "internal error: unknown projection");
}

std::string module_path(int64_t layer, Projection projection) {
  if (projection == Projection::head) return "lm_head";
  return fmt::format("model.layers.{}.{}", layer, kModule[static_cast<size_t>(projection)]);
}

std::vector<LinearPlace> linears_of(const ModelConfig& config) {
  std::vector<LinearPlace> linears;
  for (int64_t layer = 0; layer < config.layers; ++layer) {
    for (Projection p : kAllProjections) linears.push_back({layer, p});
  }
  linears.push_back({config.layers, Projection::head});
  return linears;
}

std::vector<ParamSpec> weight_table(const ModelConfig& c) {
  std::vector<ParamSpec> table;
  table.push_back({"model.embed_tokens.weight", c.vocab, c.hidden, Split::vocabulary, -1});
  for (int64_t layer = 0; layer < c.layers; ++layer) {
    const std::string prefix = fmt::format("model.layers.{}.", layer);
    table.push_back({prefix + "input_layernorm.weight", c.hidden, 1, Split::whole, layer});
    table.push_back({prefix + "post_attention_layernorm.weight", c.hidden, 1, Split::whole, layer});
    for (Projection p : kAllProjections) {
      const LinearShape shape = shape_of(c, p);
      table.push_back({module_path(layer, p) + ".weight", shape.out, shape.in, shape.split, layer});
    }
  }
  table.push_back({"model.norm.weight", c.hidden, 1, Split::whole, -1});
  if (!c.tied_head) table.push_back({"lm_head.weight", c.vocab, c.hidden, Split::vocabulary, -1});
  return table;
}

Range share_of(int64_t size, int rank, int ranks) {
  require(size % ranks == 0, "a dealt size must divide by the number of ranks");
  return {size / ranks * rank, size / ranks};
}

VocabularyShare vocabulary_share(int64_t vocab, int rank, int ranks) {
  const int64_t count = (vocab + ranks - 1) / ranks;
  const int64_t begin = count * rank;
  return {begin, count, std::clamp<int64_t>(vocab - begin, 0, count)};
}

std::string why_not_tp(const ModelConfig& c, int tp) {
  if (c.kv_heads % tp != 0) {
    return fmt::format(
        "parallel.tp {} does not divide the {} key/value heads of the model; every tensor-parallel rank holds whole "
        "heads",
        tp, c.kv_heads);
  }
  if (c.ffn % tp != 0) return fmt::format("parallel.tp {} does not divide intermediate_size {}", tp, c.ffn);
  return {};
}

}  // namespace drover
