// drover prepare: a recipe's data as tokens, and how the first document is trained.
#include <unistd.h>

#include <algorithm>
#include <iostream>
#include <nlohmann/json.hpp>

#include "data/statistics.h"
#include "launch/verbs/arguments.h"
#include "launch/verbs/run_recipe.h"
#include "launch/verbs/verb.h"
#include "trainer/setup/inputs.h"
#include "trainer/setup/untrained_tokens.h"

namespace drover {

namespace {

using nlohmann::ordered_json;

// Data may be prepared where only the tokenizer is.
std::vector<int32_t> eos_of(const fs::path& model) {
  return fs::exists(model / "config.json") ? read_model_config(model).eos : std::vector<int32_t>{};
}

// As eos_of: nothing is known of a model without weights.
std::vector<std::string> untrained_of(const PreparedData& data, const Tokenizer& tokenizer, const fs::path& model) {
  if (!fs::exists(model / "model.safetensors") && !fs::exists(model / "model.safetensors.index.json")) return {};
  ModelDirectory directory(model);
  return untrained_tokens(data.train, tokenizer, directory);
}

// The documents' lengths as bars, how full the rows are and how the answers end.
std::string report(const StoreStatistics& s) {
  constexpr int64_t kWidest = 40;
  std::string text =
      fmt::format("Lengths in tokens: shortest {}, median {}, longest {}\n", s.shortest, s.median, s.longest);
  const int64_t most = std::max<int64_t>(1, *std::ranges::max_element(s.lengths));
  for (size_t i = 0; i < s.lengths.size(); ++i) {
    if (s.lengths[i] == 0) continue;
    std::string bar;
    for (int64_t n = (s.lengths[i] * kWidest + most - 1) / most; n > 0; --n) bar += "▇";
    text += fmt::format("  {:>7} to {:>7}  {} {}\n", int64_t{1} << i, (int64_t{2} << i) - 1, bar, s.lengths[i]);
  }
  text += fmt::format("Rows are {:.1f} % full\n", 100 * s.filled);
  text += fmt::format("Answers: {}, {:.1f} % of them end in a trained token that ends an answer\n", s.answers,
                      100.0 * static_cast<double>(s.ended) / static_cast<double>(std::max<int64_t>(1, s.answers)));
  if (s.ended == 0) text += "warning: no answer ends in one: a model that is trained on this does not learn to stop\n";
  return text;
}

Exit run(const RecipeArguments& a) {
  const ReadRecipe read = read_run_recipe(a);
  const Tokenizer tokenizer = Tokenizer::open(tokenizer_directory(read.recipe));
  const auto world = make_self_communicator("world");
  const PreparedData data = prepare_data(read.recipe, tokenizer, *world);
  const bool colour = isatty(STDOUT_FILENO) != 0;
  const std::optional<ChatTemplate> chat = chat_template(read.recipe);
  const std::string template_name = chat ? chat->name() : "none";
  const StoreStatistics s =
      statistics(data.train, read.recipe.data.max_length, stop_ids(chat, tokenizer, eos_of(read.recipe.model.path)));
  const std::vector<std::string> untrained = untrained_of(data, tokenizer, read.recipe.model.path);
  if (a.json) {
    std::cout << ordered_json{{"formats", data.train.formats()},
                              {"template", template_name},
                              {"documents", data.train.documents()},
                              {"rows", data.train.rows()},
                              {"tokens", data.train.tokens()},
                              {"trained_tokens", data.train.trained_tokens(0, data.train.documents())},
                              {"lengths", {{"shortest", s.shortest}, {"median", s.median}, {"longest", s.longest}}},
                              {"length_histogram", s.lengths},
                              {"filled", s.filled},
                              {"answers", s.answers},
                              {"answers_that_end", s.ended},
                              {"untrained_tokens", untrained}}
                     .dump()
              << '\n';
    return Exit::done;
  }
  std::cout << "Rows: " << data.train.formats() << "\nChat template: " << template_name << '\n'
            << report(s) << (untrained.empty() ? "" : fmt::format("warning: {}\n", untrained_warning(untrained)))
            << "The first document, its trained tokens " << (colour ? "coloured" : "in [[ ]]")
            << ", control tokens in ⟨ ⟩:\n"
            << show(data.train.document(0), tokenizer, colour ? "\033[32m" : "[[", colour ? "\033[0m" : "]]") << '\n';
  return Exit::done;
}

}  // namespace

Verb prepare_verb(CLI::App& app) {
  const auto a = std::make_shared<RecipeArguments>();
  CLI::App* options =
      app.add_subcommand("prepare", "tokenise and pack the data, and show a sample with its trained tokens marked");
  add_recipe_options(options, *a);
  options->footer("example: drover prepare recipe.yaml");
  return {.options = options, .run = [a](const Process&) { return run(*a); }};
}

}  // namespace drover
