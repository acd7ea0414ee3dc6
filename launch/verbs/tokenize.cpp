// drover tokenize: a text's ids.
#include <iostream>
#include <nlohmann/json.hpp>

#include "data/tokenizer.h"
#include "launch/verbs/run_recipe.h"
#include "launch/verbs/verb.h"

namespace drover {

namespace {

struct Arguments {
  std::string model, text, file;
  bool has_text = false, special = false, json = false;
};

Exit run(const Arguments& a) {
  if (!a.has_text && a.file.empty()) fail(Fault::usage, "tokenize needs --text TEXT or --file FILE");
  const Tokenizer tokenizer = Tokenizer::open(model_directory(a.model));
  const std::string text = a.has_text ? a.text : read_text(a.file);
  const std::vector<int32_t> ids = a.special ? tokenizer.encode_special(text) : tokenizer.encode(text);
  std::cout << nlohmann::ordered_json{{"ids", ids}}.dump() << '\n';
  return Exit::done;
}

}  // namespace

Verb tokenize_verb(CLI::App& app) {
  const auto a = std::make_shared<Arguments>();
  CLI::App* options = app.add_subcommand("tokenize", "text to ids, as JSON");
  options->add_option("--model", a->model, "a directory with a tokenizer")->required();
  auto* text = options->add_option("--text", a->text, "the text");
  options->add_option("--file", a->file, "a file with the text")->excludes(text);
  options->add_flag("--special", a->special, "spellings of special tokens become their ids");
  options->add_flag("--json", a->json, "the ids are printed as JSON in any case");
  options->footer("example: drover tokenize --model models/smollm2 --text \"Hello there\"");
  return {.options = options, .run = [a, text](const Process&) {
            a->has_text = text->count() > 0;
            return run(*a);
          }};
}

}  // namespace drover
