// A verb of the command line: it declares its options, and does what they say. Results go to stdout, talk to stderr.
#pragma once
#include <CLI/CLI.hpp>
#include <functional>
#include <optional>
#include <string>

#include "launch/process.h"

namespace drover {

struct Verb {
  CLI::App* options;  // its subcommand
  std::function<Exit(const Process&)> run;
  bool by_many = false;  // it may be done by several ranks
  // What needs no process: a text to print instead of running. Throws usage where flags do not go together.
  std::function<std::optional<std::string>()> answer = [] { return std::nullopt; };
  std::function<OnStop()> on_stop = [] { return OnStop::end; };
};

Verb train_verb(CLI::App& app);
Verb plan_verb(CLI::App& app);
Verb prepare_verb(CLI::App& app);
Verb eval_verb(CLI::App& app);
Verb generate_verb(CLI::App& app);
Verb serve_verb(CLI::App& app);
Verb chat_verb(CLI::App& app);
Verb tokenize_verb(CLI::App& app);
Verb export_verb(CLI::App& app);
Verb import_verb(CLI::App& app);
Verb quantize_verb(CLI::App& app);
Verb make_tiny_verb(CLI::App& app);
Verb inspect_verb(CLI::App& app);
Verb doctor_verb(CLI::App& app);
Verb watch_verb(CLI::App& app);
Verb schema_verb(CLI::App& app);
Verb report_verb(CLI::App& app);
Verb compare_verb(CLI::App& app);

}  // namespace drover
