// drover make-tiny: a made-up model directory.
#include "launch/tiny_model.h"
#include "launch/verbs/verb.h"

namespace drover {

namespace {

struct Arguments {
  std::string directory;
  uint64_t seed = 1;
};

}  // namespace

Verb make_tiny_verb(CLI::App& app) {
  const auto a = std::make_shared<Arguments>();
  CLI::App* options = app.add_subcommand("make-tiny", "a made-up model that knows nothing, for trying the machinery");
  options->add_option("directory", a->directory, "the directory to make")->required();
  options->add_option("--seed", a->seed, "of its weights");
  options->footer("example: drover make-tiny models/made-up-tiny");
  return {.options = options, .run = [a](const Process&) {
            make_tiny_model(a->directory, a->seed);
            return Exit::done;
          }};
}

}  // namespace drover
