#include "launch/verbs/questions.h"

#include <ranges>

#include "kernels/base/log.h"
#include "trainer/export/adapter_effect.h"
#include "trainer/export/text_files.h"
#include "trainer/setup/inputs.h"

namespace drover {

namespace {

// Of the named adapters: which one a prompt asks for.
size_t place_of(const Adapters& adapters, const Prompt& prompt) {
  const auto found = adapters.named.find(prompt.adapter);
  if (found != adapters.named.end()) return static_cast<size_t>(std::distance(adapters.named.begin(), found));
  std::string known = "no --adapter NAME=DIR gives it";
  if (!adapters.named.empty())
    known = fmt::format("those of --adapter are {}", fmt::join(std::views::keys(adapters.named), ", "));
  fail(Fault::bad_data, "{}: there is no adapter {}: {}", prompt.where, prompt.adapter, known);
}

// The recipe with the tokenizer of the adapter that answers all prompts.
Recipe with_tokenizer_of(Recipe recipe, const Adapters& adapters) {
  if (adapters.of_all) take_tokenizer(recipe, *adapters.of_all);
  return recipe;
}

}  // namespace

Questioner::Questioner(const GenerateOptions& options, const Recipe& recipe, const ModelConfig& config)
    : adapters_(adapters_of(options)),
      config_(config),
      raw_(options.raw),
      special_(options.special),
      date_(recipe.data.template_date),
      recipe_(with_tokenizer_of(recipe, adapters_)),
      tokenizer_(Tokenizer::open(tokenizer_directory(recipe_))) {
  if (adapters_.of_all) say_effect(*adapters_.of_all, recipe.model.path);
  for (const auto& [name, directory] : adapters_.named) say_effect(directory, recipe.model.path);
  const bool dialogs = !raw_ && !special_;
  base_ = manner_of({recipe_, config_, tokenizer_, dialogs}, adapters_.of_all.value_or(recipe.model.path));
  for (const auto& [name, directory] : adapters_.named) {
    named_.push_back(manner_of_adapter({recipe, config_, tokenizer_, dialogs}, name, directory));
  }
}

std::vector<int32_t> Questioner::ids_of(const Prompt& prompt, const Manner& manner) const {
  if (special_) return rendered_ids(prompt, tokenizer_);
  if (!manner.chat && !raw_) ++plain_;
  if (spells_control_tokens(prompt, tokenizer_)) ++spelled_;
  return prompt_ids(prompt, tokenizer_, manner.chat, date_);
}

Question Questioner::question_of(const Prompt& prompt) const {
  Question q{prompt, {}, {}, {}, {}};
  if (!prompt.adapter.empty()) q.adapter = place_of(adapters_, prompt);
  const Manner& manner = q.adapter ? named_[*q.adapter] : base_;
  q.stop_ids = manner.stop_ids;
  try {
    if (!prompt.problem.empty()) fail(Fault::bad_data, "{}: {}", prompt.where, prompt.problem);
    q.ids = ids_of(prompt, manner);
    check_ids(q.ids, config_, prompt.where);
    if (static_cast<int64_t>(q.ids.size()) >= config_.max_positions) {
      fail(Fault::bad_data, "{}: the prompt has {} tokens; prompt and answer together may have {}", prompt.where,
           q.ids.size(), config_.max_positions);
    }
  } catch (const Error& error) {
    if (error.fault() != Fault::bad_data) throw;
    q.error = error;
  }
  return q;
}

void Questioner::warn() const {
  if (spelled_ > 0) {
    log::warn(
        "{} of the prompts spell control tokens, which are letters here; for a prompt that is rendered already give "
        "--special",
        spelled_);
  }
  if (!base_.chat && !special_ && !tokenizer_.after().empty()) {
    log::warn(
        "prompts end in {}, as tokenizer.json's post_processor ends every text, in transformers too; an answer may "
        "begin "
        "anew there: use the model's chat template, or a tokenizer whose post_processor ends no text (model.tokenizer)",
        tokenizer_.decode(tokenizer_.after(), false));
  }
  if (plain_ > 0)
    log::warn(
        "there is no chat template: prompts are plain text, messages are joined by blank lines (--raw for no word "
        "of it; data.template=… names a template)");
}

}  // namespace drover
