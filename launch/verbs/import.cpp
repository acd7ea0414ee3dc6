// drover import: a GGUF file as a Hugging Face directory.
#include "kernels/base/log.h"
#include "kernels/base/program.h"
#include "launch/verbs/verb.h"
#include "model/files/import_gguf.h"

namespace drover {

namespace {

struct Arguments {
  std::string gguf, directory;
};

Exit run(const Arguments& a) {
  import_gguf(a.gguf, a.directory);
  log::info("{} is a Hugging Face model directory now\n  try it: {} generate --model {} --prompt \"…\" --greedy",
            a.directory, shell_quoted(program_name()), shell_quoted(a.directory));
  return Exit::done;
}

}  // namespace

Verb import_verb(CLI::App& app) {
  const auto a = std::make_shared<Arguments>();
  CLI::App* options = app.add_subcommand("import", "a GGUF file to a Hugging Face directory");
  options->add_option("file", a->gguf, "FILE.gguf")->required();
  options->add_option("directory", a->directory, "the directory to make")->required();
  options->footer("example: drover import SmolLM2-135M-Instruct.Q4_1.gguf models/smollm2");
  return {.options = options, .run = [a](const Process&) { return run(*a); }};
}

}  // namespace drover
