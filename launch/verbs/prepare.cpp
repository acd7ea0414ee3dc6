// drover prepare: a recipe's data as tokens, and how the first document is trained.
#include <unistd.h>

#include <iostream>
#include <nlohmann/json.hpp>

#include "launch/verbs/arguments.h"
#include "launch/verbs/run_recipe.h"
#include "launch/verbs/verb.h"
#include "trainer/setup/inputs.h"

namespace drover {

namespace {

using nlohmann::ordered_json;

Exit run(const RecipeArguments& a) {
  const ReadRecipe read = read_run_recipe(a);
  const Tokenizer tokenizer = Tokenizer::open(tokenizer_directory(read.recipe));
  const auto world = make_self_communicator("world");
  const PreparedData data = prepare_data(read.recipe, tokenizer, *world);
  const bool colour = isatty(STDOUT_FILENO) != 0;
  const std::optional<ChatTemplate> chat = chat_template(read.recipe);
  const std::string template_name = chat ? chat->name() : "none";
  if (a.json) {
    std::cout << ordered_json{{"formats", data.train.formats()},
                              {"template", template_name},
                              {"documents", data.train.documents()},
                              {"rows", data.train.rows()},
                              {"tokens", data.train.tokens()},
                              {"trained_tokens", data.train.trained_tokens(0, data.train.documents())}}
                     .dump()
              << '\n';
    return Exit::done;
  }
  std::cout << "Rows: " << data.train.formats() << "\nChat template: " << template_name
            << "\nThe first document, its trained tokens " << (colour ? "coloured" : "in [[ ]]") << ":\n"
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
