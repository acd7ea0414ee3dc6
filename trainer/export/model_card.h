// README.md of an adapter's directory, a model card as Hugging Face and PEFT have them: front matter, base, data,
// recipe, losses, the comparison, how to use it, and the licence where it is known. It says the same of the same run,
// and ends with a hash of itself, by which it is known again: a page that somebody has changed is not ours any more,
// and stays.
#pragma once
#include "configs/recipe.h"
#include "trainer/export/base_licence.h"
#include "trainer/export/comparison.h"
#include "trainer/run/checkpoint.h"
#include "trainer/run/metrics.h"

namespace drover {

struct CardFacts {
  const ReadRecipe& recipe;  // model.path is the base
  const ModelConfig& base;
  const CheckpointState& state;  // of the checkpoint that the adapter is of
  LossesOfStep losses;
  const Comparison& comparison;
};

std::string model_card(const CardFacts& facts);

// comparison.json, logprobs.json and, where there is no page already, README.md of a directory that is being written.
void write_pages(const fs::path& directory, bool has_page, const CardFacts& facts);

bool is_own_card(const std::string& text);
// Copies a README.md of `from` that is not ours into `to`; true where there is one.
bool keep_page(const fs::path& from, const fs::path& to);

}  // namespace drover
