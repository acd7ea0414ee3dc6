// drover eval: loss and perplexity, of a recipe's validation data on any mesh, or of a data file under a model;
// log-probabilities per token on request.
#include <cmath>
#include <iostream>
#include <nlohmann/json.hpp>

#include "data/data_files.h"
#include "data/loader.h"
#include "kernels/base/log.h"
#include "kernels/comm/agree.h"
#include "kernels/comm/gather.h"
#include "launch/open_device.h"
#include "launch/verbs/arguments.h"
#include "launch/verbs/run_recipe.h"
#include "launch/verbs/verb.h"
#include "trainer/engine/evaluation.h"
#include "trainer/engine/plan.h"
#include "trainer/export/adapter_effect.h"
#include "trainer/export/export.h"
#include "trainer/export/text_files.h"
#include "trainer/generation/other_base.h"
#include "trainer/run/checkpoint.h"
#include "trainer/run/run_identity.h"
#include "trainer/setup/adapter_setup.h"
#include "trainer/setup/engine_settings.h"
#include "trainer/setup/inputs.h"
#include "trainer/setup/model_check.h"

namespace drover {

namespace {

using nlohmann::ordered_json;

struct Arguments {
  RecipeArguments recipe;  // with --model all words are overrides
  ModelArguments model;
  std::string data, per_token;
};

struct Subject {
  ReadRecipe read;  // of a recipe, or made from --model and --data
  std::optional<AdapterConfig> adapter;
  std::optional<fs::path> adapter_directory;  // else the recipe's latest checkpoint
};

Subject subject_of(const Arguments& a) {
  Subject s;
  if (a.model.model.empty() && !a.recipe.words.empty()) {
    if (!a.data.empty() || !a.model.adapter.empty())
      fail(Fault::usage,
           "give a recipe, or --model DIR with --data and --adapter: a recipe names its own model and data, and its "
           "run the adapter");
    s.read = read_run_recipe(a.recipe);
    const Validation& validation = s.read.recipe.data.validation;
    if (validation.files.empty() && validation.share <= 0)
      fail(Fault::bad_recipe, "eval needs data.validation in the recipe, or --model and --data");
    if (validation.files.empty() && !a.per_token.empty())
      fail(Fault::usage,
           "--per-token needs a file in data.validation: a share of the training rows has no order of its own");
    s.adapter = adapter_config(s.read);
    return s;
  }
  if (a.model.model.empty() || a.data.empty())
    fail(Fault::usage, "eval needs a recipe, or --model DIR and --data FILE");
  constexpr std::string_view kAllowed[] = {
      "device",          "model.tokenizer", "model.weights", "train.dtype",        "train.micro_batch_size",
      "parallel.tp",     "parallel.pp",     "parallel.dp",   "parallel.transport", "data.format",
      "data.fields",     "data.special",    "data.template", "data.template_date", "data.train_on",
      "data.max_length", "data.bad_rows",   "memory.weights"};
  Recipe& recipe = s.read.recipe;
  recipe = read_overrides(a.recipe.words, kAllowed);
  recipe.model.path = model_directory(a.model.model);
  recipe.data.validation.files = {{a.data, RowFormat::automatic, 1}};
  const bool stated = std::any_of(a.recipe.words.begin(), a.recipe.words.end(),
                                  [](const std::string& text) { return text.starts_with("data.max_length="); });
  if (!stated) recipe.data.max_length = read_model_config(recipe.model.path).max_positions;
  if (!a.model.adapter.empty()) {
    s.adapter_directory = model_directory(a.model.adapter);
    s.adapter = AdapterFile(*s.adapter_directory).config();
    say_effect(*s.adapter_directory, recipe.model.path);
    take_tokenizer(recipe, *s.adapter_directory);
  }
  return s;
}

TokenStore store_of(const Recipe& recipe, const Tokenizer& tokenizer, const ModelConfig& model,
                    std::optional<TrainOn> every_row_on) {
  if (recipe.data.validation.files.empty()) return std::move(*prepare_data_in_memory(recipe, tokenizer).validation);
  PrepareSettings settings = prepare_settings(recipe, recipe.data.validation.files);
  settings.packing = false;
  settings.whole_rows = every_row_on.has_value();
  settings.train_on = every_row_on.value_or(settings.train_on);
  PrepareReport report;
  TokenStore store = prepare(settings, tokenizer, report);
  for (const std::string& line : warnings_of(report, "validation", settings.max_length)) log::warn("{}", line);
  check_ids(store, model, "the validation data");
  return store;
}

// ln p(ids[i+1] | ids[0..i]) of every document of a store in which every token is a target.
using Logprobs = std::map<int64_t, std::vector<float>>;  // by document

struct ScoredToken {
  int64_t document;
  float logprob;
};

// Every rank of a last stage knows the documents of its dp share; all ranks get those of all, each in its order.
Logprobs all_documents(const Logprobs& share, const Mesh& mesh) {
  std::vector<ScoredToken> mine;
  if (mesh.position.tp() == 0) {
    for (const auto& [ordinal, values] : share) {
      for (const float value : values) mine.push_back({ordinal, value});
    }
  }
  Logprobs documents;
  for (const std::vector<ScoredToken>& tokens : gather_lists<ScoredToken>(*mesh.world, mine)) {
    for (const ScoredToken& token : tokens) documents[token.document].push_back(token.logprob);
  }
  return documents;
}

void write_per_token(const std::string& file, const TokenStore& store, Logprobs& documents) {
  std::string text;
  for (int64_t ordinal = 0; ordinal < store.documents(); ++ordinal) {
    const Document doc = store.document(ordinal);
    text +=
        ordered_json{{"ids", std::vector<int32_t>(doc.ids.begin(), doc.ids.end())}, {"logprobs", documents[ordinal]}}
            .dump() +
        "\n";
  }
  write_text(file, text);
}

// The score over what a recipe trains on, of the same documents.
Evaluation score_of(const TokenStore& masks, Logprobs& documents) {
  Evaluation score;
  for (int64_t ordinal = 0; ordinal < masks.documents(); ++ordinal) {
    const Document doc = masks.document(ordinal);
    for (size_t i = 1; i < doc.ids.size(); ++i) {
      if (doc.trained[i] == 0) continue;
      score.sum -= static_cast<double>(doc.weight) * documents[ordinal].at(i - 1);
      score.weight += doc.weight;
      ++score.tokens;
    }
  }
  return score;
}

// What to evaluate on which mesh, the same on every rank.
std::pair<Subject, MeshShape> agreed_subject(const Process& process, const Arguments& a) {
  Subject subject;
  MeshShape shape;
  check_same_program(process);
  together(*process.world, [&] {
    subject = subject_of(a);
    device_of(subject.read.recipe);
    if (!a.per_token.empty()) {
      for (const DataFile& file : subject.read.recipe.data.validation.files) {
        for (const fs::path& path : data_files(file.path)) {
          if (same_file(path, a.per_token))
            fail(Fault::usage, "--per-token {} is the data itself; name another file", a.per_token);
        }
      }
    }
    shape = mesh_shape(subject.read.recipe, process.mpi.size);
  });
  check_same(*process.world, "what is asked for",
             fmt::format("{} {} {}", resolved_recipe(subject.read), a.model.adapter, a.per_token));
  // As many micro-batches as keep a pipeline full, and as share a passage of streamed weights; as many where they stay,
  // so that sums have the same bits.
  constexpr int kShareAPassage = 16;
  TrainSection& train = subject.read.recipe.train;
  train.global_batch_size = train.micro_batch_size * shape.dp() * std::max(shape.pp(), kShareAPassage);
  return {std::move(subject), shape};
}

// What is read before a device is opened.
struct Inputs {
  Inputs(const Subject& subject, const MeshShape& shape, bool per_token);

  ModelDirectory model;
  BaseWeights base;  // of the model, with the adapter's in place
  Tokenizer tokenizer;
  TokenStore store;
  EngineSettings settings;
};

BaseWeights base_of(const Subject& subject, ModelDirectory& model) {
  return subject.adapter_directory ? BaseWeights(model, AdapterFile(*subject.adapter_directory)) : BaseWeights(model);
}

Inputs::Inputs(const Subject& subject, const MeshShape& shape, bool per_token)
    : model(subject.read.recipe.model.path),
      base(base_of(subject, model)),
      tokenizer(Tokenizer::open(tokenizer_directory(subject.read.recipe))) {
  const Recipe& recipe = subject.read.recipe;
  store = store_of(recipe, tokenizer, base.config(), per_token ? std::optional(TrainOn::all) : std::nullopt);
  AdapterLayout layout;
  if (subject.adapter) layout = adapter_layout_of(base.config(), *subject.adapter);
  settings = engine_settings(recipe, base.config(), layout, shape, nullptr);
  settings.stored = [this](const ParamSpec& spec) { return base.scaling(spec); };
  settings.train = false;
  const Loader loader(store, {recipe.train.micro_batch_size, recipe.train.global_batch_size, false, 0, 0, 1});
  settings.capacity.micro_batch = loader.largest_micro_batch(loader.steps_per_epoch());
  settings.max_positions = store.longest_document();
}

// The adapter that was named, or that of the recipe's newest checkpoint.
void load_subject(const Subject& subject, const Inputs& inputs, const std::string& fingerprint, Replica& replica) {
  if (!subject.adapter) return;
  if (subject.adapter_directory) {
    if (replica.adapter) load_adapter(*subject.adapter_directory, inputs.base.config(), *replica.adapter);
    return;
  }
  const Recipe& recipe = subject.read.recipe;
  const auto warn = [](const std::string& text) { log::warn("{}", text); };
  const auto checkpoint = Checkpoint::latest(recipe.output.dir, warn);
  if (!checkpoint) {
    fail(Fault::missing_input, "{} holds no checkpoint that verifies; train the recipe first", recipe.output.dir);
  }
  check_same_adapter(*checkpoint, recipe, fingerprint);
  replica.load(*checkpoint);
}

// Writes every document's log-probabilities to `file`; the score is over what the recipe trains on.
Evaluation evaluate_per_token(Engine& engine, const Inputs& inputs, const Recipe& recipe, const std::string& file,
                              const Mesh& mesh) {
  Logprobs share;
  evaluate_store(engine, inputs.store, recipe.train.micro_batch_size, recipe.train.global_batch_size,
                 [&](const MicroBatch& m, std::span<const float> logprobs) {
                   size_t next = 0;
                   for (size_t t = 0; t < m.tokens.size(); ++t) {
                     if (m.labels[t] >= 0) share[m.documents[t]].push_back(logprobs[next++]);
                   }
                 });
  Logprobs documents = all_documents(share, mesh);
  Evaluation score;
  together(*mesh.world, [&] {
    if (mesh.world->rank() == 0) write_per_token(file, inputs.store, documents);
    const TrainOn train_on = prepare_settings(recipe, recipe.data.validation.files).train_on;
    score = score_of(store_of(recipe, inputs.tokenizer, inputs.base.config(), train_on), documents);
  });
  return score;
}

void check_score(const Evaluation& score, const Recipe& recipe) {
  if (score.weight <= 0)
    fail(Fault::bad_data, "no token of the data counts for the loss; check the rows and data.train_on");
  if (!std::isfinite(score.loss())) {
    fail(Fault::non_finite,
         "the loss is {}: the weights of the model or of the adapter hold values that are not finite, or overflow {}",
         score.loss(), word_of(recipe.train.dtype));
  }
}

void print_score(const Evaluation& score, bool as_json) {
  const double loss = score.loss();
  if (as_json) {
    std::cout << ordered_json{{"loss", loss}, {"perplexity", std::exp(loss)}, {"tokens", score.tokens}}.dump() << '\n';
  } else {
    std::cout << fmt::format("loss {:.4f}  perplexity {:.3f}  over {} tokens\n", loss, std::exp(loss), score.tokens);
  }
}

Exit run(const Process& process, const Arguments& a) {
  const auto [subject, shape] = agreed_subject(process, a);
  const Recipe& recipe = subject.read.recipe;
  const bool per_token = !a.per_token.empty();
  Mesh mesh = make_mesh(shape);
  Communicator& world = *mesh.world;
  std::optional<Inputs> inputs;
  together(world, [&, &subject = subject, &shape = shape] { inputs.emplace(subject, shape, per_token); });
  EngineSettings& settings = inputs->settings;
  const std::string fingerprint =
      check_weights_together(inputs->model, settings.partition[static_cast<size_t>(mesh.position.pp())], world);

  if (subject.adapter_directory) {
    warn_of_other_base({&*subject.adapter_directory, 1}, recipe, mesh,
                       [&, &recipe = recipe](const Mesh& host) { return open_device(host, recipe, process); });
  }
  Device device = open_device(mesh, recipe, process);
  fit_to(device, settings);
  const ArenaBytes bytes = plan_rank(settings, mesh.shape, mesh.position).bytes;
  const std::unique_ptr<Replica> replica = open_replica(settings, std::move(device), inputs->base, bytes);
  std::optional<Engine> engine;
  together(world, [&, &subject = subject] {
    engine.emplace(settings, *replica, bytes.saved);
    load_subject(subject, *inputs, fingerprint, *replica);
  });

  const Evaluation score =
      per_token ? evaluate_per_token(*engine, *inputs, recipe, a.per_token, mesh)
                : evaluate_store(*engine, inputs->store, recipe.train.micro_batch_size, recipe.train.global_batch_size);
  check_score(score, recipe);
  if (world.rank() == 0) print_score(score, a.recipe.json);
  return Exit::done;
}

}  // namespace

Verb eval_verb(CLI::App& app) {
  const auto a = std::make_shared<Arguments>();
  CLI::App* options =
      app.add_subcommand("eval", "loss and perplexity of a recipe's validation data, or of --data under --model");
  options->add_option("recipe", a->recipe.words, "RECIPE.yaml (not with --model), then any section.key=value");
  add_model_options(options, a->model);
  options->add_option("--data", a->data, "rows: a file, a directory or a pattern, of any data.format");
  options->add_option("--per-token", a->per_token, "write ids and log-probabilities of every document to this file");
  options->add_flag("--json", a->recipe.json, "print the result as JSON");
  options->footer(
      "example: drover eval --model models/smollm2 --adapter runs/handbook/adapter --data "
      "data/sample/handbook.validation.jsonl");
  return {.options = options, .run = [a](const Process& process) { return run(process, *a); }, .by_many = true};
}

}  // namespace drover
