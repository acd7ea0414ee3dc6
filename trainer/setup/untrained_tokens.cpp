#include "trainer/setup/untrained_tokens.h"

#include <algorithm>
#include <cmath>
#include <map>
#include <set>

#include "kernels/base/error.h"

namespace drover {

std::vector<std::string> untrained_tokens(const TokenStore& data, const Tokenizer& tokenizer, ModelDirectory& model) {
  constexpr float kZero = 1e-16f;
  std::set<int32_t> used;
  data.each_document([&](const Document& document) {
    for (const int32_t id : document.ids) {
      if (tokenizer.is_special(id)) used.insert(id);
    }
  });
  if (used.empty()) return {};
  std::map<std::vector<float>, int> rows;  // how many control tokens have this embedding
  std::map<int32_t, std::vector<float>> row_of;
  std::vector<float> row(static_cast<size_t>(model.config().hidden));
  const auto ids = static_cast<int32_t>(std::min<int64_t>(tokenizer.vocab_size(), model.config().vocab));
  for (int32_t id = 0; id < ids; ++id) {
    if (!tokenizer.is_special(id)) continue;
    model.read("model.embed_tokens.weight", id, 1, 0, model.config().hidden, DType::f32, row.data());
    ++rows[row];
    if (used.count(id) != 0) row_of[id] = row;
  }
  std::vector<std::string> untrained;
  for (const auto& [id, values] : row_of) {
    const bool zero = std::ranges::all_of(values, [](float v) { return std::abs(v) <= kZero; });
    if (zero || rows.at(values) > 1) untrained.push_back(tokenizer.decode(std::span(&id, 1), false));
  }
  return untrained;
}

std::string untrained_warning(const std::vector<std::string>& tokens) {
  return fmt::format(
      "the model never trained {}, which the data hold: {} embeddings are zero or equal to those of other control "
      "tokens, "
      "and LoRA does not change them, so that it may not learn to read or to end turns. Take the model's "
      "instruction-tuned variant, or a chat template of tokens that it knows (data.template)",
      fmt::join(tokens, ", "), tokens.size() == 1 ? "its" : "their");
}

}  // namespace drover
