// The factors of an adapted linear, A (r, in) and B (out, r), and what PEFT calls them in files; checkpoints do too.
#pragma once
#include <array>
#include <cstdint>
#include <optional>
#include <string_view>

namespace drover {

enum class Factor : uint8_t { a, b };

struct FactorName {
  Factor factor;
  std::string_view suffix;  // behind the linear's module path
};
inline constexpr std::array kFactors = {FactorName{Factor::a, ".lora_A"}, FactorName{Factor::b, ".lora_B"}};

constexpr std::string_view suffix_of(Factor factor) { return kFactors[static_cast<size_t>(factor)].suffix; }

// Of "model.layers.0.self_attn.q_proj.lora_A"; none where the name is not a factor's.
constexpr std::optional<Factor> factor_of(std::string_view name) {
  for (const FactorName& known : kFactors) {
    if (name.ends_with(known.suffix)) return known.factor;
  }
  return std::nullopt;
}

}  // namespace drover
