// drover serve: OpenAI's API over HTTP, alone or divided over ranks.
#include <charconv>
#include <limits>
#include <memory>

#include "kernels/comm/agree.h"
#include "launch/openai/field_table.h"
#include "launch/serve/served_models.h"
#include "launch/serve/server.h"
#include "launch/verbs/inference_setup.h"
#include "launch/verbs/run_recipe.h"
#include "launch/verbs/verb.h"
#include "trainer/setup/inputs.h"

namespace drover {

namespace {

struct Options {
  std::string model, name, api_keys, adapter_root, follow, kv_memory = "auto";
  std::vector<std::string> adapters, overrides;
  std::optional<int64_t> adapter_rank;
  int64_t header_kib = 16, body_mib = 8, idle_s = 60, request_s = 600;
  ServeSettings settings;
};

// "auto", or a number of bytes with KiB, MiB, GiB or TiB behind it.
int64_t kv_bytes(const std::string& text) {
  if (text == "auto") return 0;
  double number = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), number);
  const std::string unit = error == std::errc() ? std::string(end, text.data() + text.size()) : "?";
  constexpr std::pair<const char*, int> kUnits[] = {{"KiB", 10}, {"MiB", 20}, {"GiB", 30}, {"TiB", 40}};
  for (const auto& [name, shift] : kUnits) {
    if (unit == name && number > 0 && number < 1e6)
      return static_cast<int64_t>(number * static_cast<double>(1ll << shift));
  }
  fail(Fault::usage, "--kv-memory {}: allowed are auto, or a size like 512MiB or 16GiB", text);
}

// RUN, or NAME=RUN; without a name the run's own.
std::pair<std::string, fs::path> followed_run(const std::string& text) {
  const size_t end = text.find('=');
  const bool named = end != std::string::npos && !fs::exists(text);
  const fs::path run = named ? text.substr(end + 1) : text;
  const std::string name = named ? text.substr(0, end) : fs::weakly_canonical(run).filename().string();
  if (!is_model_name(name) || name.size() > 50) {
    fail(Fault::usage, "--follow {}: name it, as NAME=RUN; a name has {}, here at most 50", text, kModelName);
  }
  return {name, run};
}

ServeSettings settings_of(const Options& o) {
  if (o.model.empty()) fail(Fault::usage, "serve needs --model DIR");
  constexpr std::string_view kAllowed[] = {
      "device",      "model.tokenizer", "model.weights",      "train.dtype",        "parallel.tp",   "parallel.pp",
      "parallel.dp", "data.template",   "data.template_date", "parallel.transport", "memory.weights"};
  ServeSettings s = o.settings;
  s.recipe = read_overrides(o.overrides, kAllowed);
  if (s.recipe.parallel.dp.value_or(1) > 1) {
    fail(Fault::bad_recipe,
         "parallel.dp={}: a server is one replica; start several, behind a proxy that deals requests",
         *s.recipe.parallel.dp);
  }
  s.recipe.model.path = model_directory(o.model);
  s.adapters = named_adapters(o.adapters);
  const fs::path path = fs::weakly_canonical(s.recipe.model.path);
  s.name = o.name.empty() ? path.filename().string() : o.name;
  if (o.name.empty() && !is_model_name(s.name)) s.name = "model";
  if (!is_model_name(s.name)) {
    fail(Fault::usage, "--name {}: a name has {}", s.name, kModelName);
  }
  for (const auto& [name, directory] : s.adapters) {
    if (name == s.name) fail(Fault::usage, "--adapter {}: so the base is called; give it another --name", name);
  }
  if (!o.api_keys.empty()) s.api_keys = o.api_keys;
  if (!o.adapter_root.empty()) s.adapter_root = o.adapter_root;
  if (s.adapter_changes && !s.adapter_root) {
    fail(Fault::usage, "--allow-adapter-changes needs --adapter-root DIR, below which adapters may be loaded");
  }
  if (s.adapter_root && !s.adapter_changes) {
    fail(Fault::usage, "--adapter-root needs --allow-adapter-changes; without it no adapter is loaded later");
  }
  if (!o.follow.empty()) s.follow = followed_run(o.follow);
  if (s.follow && s.follow->first == s.name) {
    fail(Fault::usage, "--follow {}: so the base is called; name the run, as NAME=RUN", o.follow);
  }
  for (const auto& [name, directory] : s.adapters) {
    if (s.follow && s.follow->first == name) {
      fail(Fault::usage, "--follow {}: an --adapter is called {} too; name the run otherwise, as NAME=RUN", o.follow,
           name);
    }
  }
  if (s.adapter_root && !fs::is_directory(*s.adapter_root)) {
    fail(Fault::missing_input, "--adapter-root {} is no directory", s.adapter_root->string());
  }
  if (o.adapter_rank && !s.loads_adapters()) {
    fail(Fault::usage,
         "--max-adapter-rank is of adapters that are loaded later: it needs --allow-adapter-changes or "
         "--follow");
  }
  s.max_adapter_rank = o.adapter_rank.value_or(s.max_adapter_rank);
  s.kv_bytes = kv_bytes(o.kv_memory);
  s.limits.header_bytes = static_cast<size_t>(o.header_kib) << 10;
  s.limits.body_bytes = static_cast<size_t>(o.body_mib) << 20;
  s.limits.idle_time = std::chrono::seconds(o.idle_s);
  s.limits.request_time = std::chrono::seconds(o.request_s);
  return s;
}

void add_limits(CLI::App* verb, Options& o) {
  const auto count = [&](const char* flag, auto& value, const char* help, int64_t least, int64_t most) {
    verb->add_option(flag, value, help)->check(CLI::Range(least, most))->capture_default_str();
  };
  ServeSettings& s = o.settings;
  count("--max-sequences", s.sequences, "answers that grow at once", 1, 4096);
  count("--max-queue", s.queue, "requests that wait; further ones get 429", 1, 1'000'000);
  count("--max-context", s.max_context, "tokens of a prompt with its answer; 0: the model's positions", 0, 1 << 30);
  count("--pass-tokens", s.pass_tokens, "tokens of one pass: prompts' chunks and answers together", 64, 1 << 20);
  count("--max-connections", s.limits.connections, "open connections", 1, 1'000'000);
  count("--max-header-kib", o.header_kib, "KiB of a request's header", 1, 1024);
  count("--max-body-mib", o.body_mib, "MiB of a request's body", 1, 1024);
  count("--idle-seconds", o.idle_s, "a connection without a request, or a body without progress", 1, 86400);
  count("--request-seconds", o.request_s, "from a request to its answer's end", 1, 86400);
  count("--max-n", s.most_answers, "answers to one prompt (n)", 1, openai::kMostAnswers);
  count("--max-stop", s.most_stops, "texts that end an answer (stop)", 1, openai::kMostStops);
  verb->add_option("--max-adapter-rank", o.adapter_rank, "of adapters that are loaded later (default: 64)")
      ->check(CLI::Range(1, 1024));
}

void add_options(CLI::App* verb, Options& o) {
  ServeSettings& s = o.settings;
  verb->add_option("--model", o.model, "the model's directory");
  verb->add_option("--name", o.name, "the model's id for clients (default: its directory's name)");
  verb->add_option("--adapter", o.adapters, "NAME=DIR: a PEFT adapter, asked for as \"model\": NAME; several times")
      ->expected(1)
      ->take_all()
      ->allow_extra_args(false);
  verb->add_option("overrides", o.overrides, "section.key=value, for example train.dtype=fp32 (default: bf16)");
  verb->add_option("--host", s.host, "the address to listen on")->capture_default_str();
  verb->add_option("--port", s.port, "the port; 0: any that is free")->capture_default_str();
  verb->add_option("--api-keys", o.api_keys, "a file of keys, one a line (# comments), of which clients must send one");
  verb->add_option("--cors", s.cors, "the origin whose pages may ask (* for all); default: none but the server's own");
  verb->add_option("--kv-memory", o.kv_memory,
                   "for keys and values on each rank, like 16GiB; auto: 80% of what is free")
      ->capture_default_str();
  verb->add_flag("--allow-adapter-changes", s.adapter_changes, "clients may load and unload adapters");
  verb->add_option("--adapter-root", o.adapter_root, "the directory below which they may be loaded");
  verb->add_option("--follow", o.follow,
                   "[NAME=]RUN: serve the adapter of each new checkpoint of this run, as NAME and as NAME@STEP");
  verb->add_flag("--log-prompts", s.log_prompts, "write the requests' texts to the log too");
  add_limits(verb, o);
  verb->footer(
      "example: drover serve --model models/smollm2 --adapter support=runs/support/adapter\n"
      "         curl http://127.0.0.1:8000/v1/chat/completions -d '{\"messages\": [{\"role\": \"user\", \"content\": "
      "\"Hello\"}]}'\n"
      "A stop signal ends it when the requests that it has taken are answered; a second one ends it at once.");
}

Exit run(const Process& process, const Options& o) {
  ServeSettings settings;
  MeshShape shape;
  check_same_program(process);
  together(*process.world, [&] {
    settings = settings_of(o);
    shape = inference_mesh(settings.recipe.parallel, process.mpi.size, "serve");
  });
  check_same(
      *process.world, "the command line",
      fmt::format("{} {} {} {} {} {} {} {} {}", resolved_recipe({settings.recipe, {}}), fmt::join(o.overrides, " "),
                  fmt::join(o.adapters, " "), o.kv_memory, settings.sequences, settings.max_context,
                  settings.pass_tokens, settings.loads_adapters(), settings.max_adapter_rank));
  return serve(process, shape, settings);
}

}  // namespace

Verb serve_verb(CLI::App& app) {
  const auto o = std::make_shared<Options>();
  CLI::App* options = app.add_subcommand("serve", "answer requests in OpenAI's API over HTTP");
  add_options(options, *o);
  return {.options = options,
          .run = [o](const Process& process) { return run(process, *o); },
          .by_many = true,
          .on_stop = [] { return OnStop::drain; }};
}

}  // namespace drover
