// The command line: from its words to a verb, and from the verb's result to an exit code.
#include <algorithm>
#include <iostream>

#include "kernels/base/log.h"
#include "launch/verbs/verb.h"
#include "launch/version.h"

namespace {

using namespace drover;

// Run before the initialisers of all shared libraries.
[[gnu::used, gnu::section(".preinit_array")]] void (*const first_of_all)(int, char**, char**) =
    [](int, char**, char**) { drover::prepare_process(); };

int refuse(Exit code, const std::string& text) {
  log::put(fmt::format("drover: {}\n", text));
  return static_cast<int>(code);
}

int print(const std::string& text) {
  std::cout << text << std::flush;
  return static_cast<int>(std::cout ? Exit::done : Exit::io);
}

int refuse_words(const std::string& word, const CLI::App& app, const std::string& why) {
  std::vector<std::string> names;
  for (const CLI::App* verb : app.get_subcommands([](const CLI::App*) { return true; })) {
    names.push_back(verb->get_name());
  }
  const bool known = std::find(names.begin(), names.end(), word) != names.end();
  const bool a_verb = word.empty() || word.starts_with("-") || known;
  const std::string wrong =
      a_verb ? why : fmt::format("there is no verb {}; there are {}", word, fmt::join(names, ", "));
  return refuse(Exit::usage, wrong + "\nRun `drover --help`, or `drover VERB --help` for an example.");
}

Exit run(const Verb& verb, const Process& process) {
  if (process.mpi.size > 1 && !verb.by_many) {
    fail(Fault::usage, "drover {} is done by one process; start it without mpirun", verb.options->get_name());
  }
  return verb.run(process);
}

}  // namespace

int main(int argc, char** argv) {
  CLI::App app{"Drover fine-tunes Llama models with low-rank adapters, from YAML recipes, under mpirun."};
  app.require_subcommand(0, 1);
  bool version = false;
  app.add_flag("--version", version, "version, commit, backends and libraries");
  std::vector<Verb> verbs;
  for (auto* make : {train_verb, plan_verb, prepare_verb, eval_verb, generate_verb, chat_verb, serve_verb,
                     tokenize_verb, export_verb, import_verb, quantize_verb, make_tiny_verb, inspect_verb, doctor_verb,
                     watch_verb, report_verb, compare_verb, schema_verb}) {
    verbs.push_back(make(app));
  }
  const std::string word = argc > 1 ? argv[1] : "";
  try {
    app.parse(argc, argv);
  } catch (const CLI::CallForHelp& help) {
    return app.exit(help);
  } catch (const CLI::ParseError& error) {
    return refuse_words(word, app, error.what());
  }
  if (version) return print(version_text());
  const auto verb = std::find_if(verbs.begin(), verbs.end(), [](const Verb& v) { return v.options->parsed(); });
  if (verb == verbs.end()) {
    std::cout << app.help();
    return static_cast<int>(Exit::usage);
  }
  Process process;
  try {
    if (const std::optional<std::string> text = verb->answer()) return print(*text);
    process = start_process(&argc, &argv, verb->on_stop());
  } catch (const Error& error) {
    return refuse(exit_of(error.fault()), error.what());
  }
  return guarded(process, [&] { return run(*verb, process); });
}
