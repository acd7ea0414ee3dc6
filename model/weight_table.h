// The weight table: every tensor of a LlamaForCausalLM by its Hugging Face name, with its shape and how tensor
// parallelism cuts it.
#pragma once
#include <array>
#include <string>
#include <vector>

#include "model/config.h"

namespace drover {

enum class Split : uint8_t {
  whole,       // every tensor-parallel rank holds all of it
  output,      // rows are dealt: q, k, v, gate, up
  input,       // columns are dealt: o, down
  vocabulary,  // rows are dealt in blocks of ceil(V/tp); the last block may be short
};

struct ParamSpec {
  std::string name;
  int64_t rows = 0, cols = 0;  // a norm's weight is (D, 1)
  Split split = Split::whole;
  int64_t layer = -1;  // -1: embedding, final norm, head
};

std::vector<ParamSpec> weight_table(const ModelConfig& config);

// The linears that adapters can be on: the seven of a block, in the order in which adapters are laid out, and lm_head.
enum class Projection : uint8_t { q, k, v, o, gate, up, down, head };
inline constexpr int kProjections = 7;  // of a block
inline constexpr std::array<Projection, kProjections> kAllProjections = {
    Projection::q, Projection::k, Projection::v, Projection::o, Projection::gate, Projection::up, Projection::down};

struct LinearShape {
  int64_t out = 0, in = 0;
  Split split = Split::output;
};
LinearShape shape_of(const ModelConfig& config, Projection projection);
// "model.layers.3.self_attn.q_proj"; "lm_head" has no layer, whatever is given.
std::string module_path(int64_t layer, Projection projection);

// One of a model's linears. The head counts as the one linear of the layer above the last.
struct LinearPlace {
  int64_t layer = 0;
  Projection projection = Projection::q;
};
std::vector<LinearPlace> linears_of(const ModelConfig& config);  // in the model's order

// This rank's part [begin, begin + count) of `size` dealt over `ranks`; sizes that do not divide are an internal error
// (the mesh was checked before).
struct Range {
  int64_t begin = 0, count = 0;
};
Range share_of(int64_t size, int rank, int ranks);

// Vocabulary rows of a rank: `count` rows are held (the same on every rank), the first `valid` of them are real.
struct VocabularyShare {
  int64_t begin = 0, count = 0, valid = 0;
};
VocabularyShare vocabulary_share(int64_t vocab, int rank, int ranks);

// Whether tp fits the model; the reason where it does not (empty: it fits).
std::string why_not_tp(const ModelConfig& config, int tp);

}  // namespace drover
