// drover eval: loss and perplexity, of a recipe's validation data on any mesh, or of a data file under a model; log-probabilities per token on request.
#include <cmath>
#include <fstream>
#include <iostream>
#include <nlohmann/json.hpp>

#include "kernels/base/log.h"
#include "kernels/comm/agree.h"
#include "launch/verbs.h"
#include "trainer/checkpoint.h"
#include "trainer/export.h"
#include "trainer/model_check.h"
#include "trainer/run.h"
#include "trainer/setup.h"

namespace drover {

namespace {

using nlohmann::ordered_json;

struct Subject {
  Recipe recipe;  // of a recipe, or made from --model and --data
  std::optional<AdapterConfig> adapter;
  std::optional<fs::path> adapter_directory;  // else the recipe's latest checkpoint
};

Subject subject_of(const EvalArguments& a) {
  Subject s;
  if (!a.recipe.recipe.empty()) {
    const ReadRecipe read = read_recipe(a.recipe.recipe, a.recipe.overrides);
    s.recipe = read.recipe;
    if (s.recipe.data.validation.files.empty()) fail(Exit::bad_recipe, "eval needs data.validation in the recipe, or --model and --data");
    s.adapter = adapter_config(read);
    return s;
  }
  if (a.model.model.empty() || a.data.empty()) fail(Exit::usage, "eval needs a recipe, or --model DIR and --data FILE");
  constexpr std::string_view kAllowed[] = {"device", "model.tokenizer", "train.dtype", "train.micro_batch_size", "train.global_batch_size", "parallel.tp", "parallel.pp", "parallel.dp",
                                           "data.format", "data.template", "data.template_date", "data.train_on", "data.max_length", "data.bad_rows"};
  s.recipe = read_overrides(a.recipe.overrides, kAllowed);
  s.recipe.model.path = a.model.model;
  s.recipe.data.validation.files = {{a.data, "auto", 1}};
  s.recipe.data.max_length = std::min(s.recipe.data.max_length, read_model_config(a.model.model).max_positions);
  s.recipe.data.packing = false;
  if (!a.model.adapter.empty()) {
    s.adapter_directory = a.model.adapter;
    s.adapter = adapter_config_in(a.model.adapter);
  }
  return s;
}

// Log-probabilities of a document's targets, in the file's order; a token that is no target has none.
struct DocumentLogprobs {
  std::vector<float> values;
};

void write_per_token(const std::string& file, const TokenStore& store, std::map<int64_t, DocumentLogprobs>& documents) {
  std::string text;
  for (auto& [ordinal, d] : documents) {
    const Document doc = store.document(ordinal);
    ordered_json row = {{"ids", std::vector<int32_t>(doc.ids.begin(), doc.ids.end())}, {"logprobs", d.values}};
    text += row.dump() + "\n";
  }
  write_text(file, text);
}

}  // namespace

Exit run_eval(const Process& process, const EvalArguments& a) {
  const Subject subject = subject_of(a);
  const Recipe& recipe = subject.recipe;
  refuse_unbuilt(recipe);
  MeshSizes sizes = check_mesh(recipe, process.world.size);
  Mesh mesh = launched_by_mpi() ? make_mpi_mesh({sizes.tp, sizes.pp, sizes.dp}) : make_self_mesh();
  Communicator& world = *mesh.world;

  std::optional<ModelDirectory> model;
  std::optional<Tokenizer> tokenizer;
  TokenStore store;
  AdapterLayout layout;
  together(world, [&] {
    model.emplace(recipe.model.path);
    tokenizer.emplace(Tokenizer::open(tokenizer_directory(recipe)));
    PrepareSettings settings = prepare_settings(recipe, recipe.data.validation.files);
    settings.packing = false;
    if (!a.per_token.empty()) settings.train_on = TrainOn::all;  // every token has a log-probability
    PrepareReport report;
    store = prepare(settings, *tokenizer, report);
    if (subject.adapter) layout = adapter_layout_of(model->config(), *subject.adapter);
  });

  EngineSettings settings;
  together(world, [&] { settings = engine_settings(recipe, model->config(), layout, sizes, nullptr); });
  check_weights_together(*model, settings.partition[static_cast<size_t>(mesh.position.pp)], world);
  settings.train = false;
  const LoaderSettings in_order{recipe.train.micro_batch_size, recipe.train.global_batch_size, false, 0, 0, 1};
  const Loader loader(store, in_order);
  const Loader::Largest largest = loader.largest_micro_batch(loader.steps_per_epoch());
  settings.micro_batch_tokens = largest.tokens;
  settings.micro_batch_trained = largest.trained_tokens;
  settings.max_positions = store.longest_document();
  const ArenaBytes bytes = plan_rank(settings, mesh.shape, mesh.position).bytes;
  const auto backend = make_cpu_backend(process.threads);
  DirectoryWeights weights(*model);
  std::optional<Engine> engine;
  together(world, [&] {
    engine.emplace(settings, *backend, mesh, weights, bytes);
    if (!subject.adapter) return;
    if (subject.adapter_directory) {
      load_adapter(*subject.adapter_directory, *engine->adapter());
    } else {
      const auto checkpoint = Checkpoint::latest(recipe.output.dir, [](const std::string& text) { log::warn("{}", text); });
      if (!checkpoint) fail(Exit::missing_input, "{} holds no checkpoint that verifies; train the recipe first", recipe.output.dir);
      checkpoint->load(*engine->adapter(), *backend);
    }
  });

  std::map<int64_t, DocumentLogprobs> documents;
  double sum = 0, weight = 0;
  int64_t tokens = 0;
  for (int64_t step = 0; step < loader.steps_per_epoch(); ++step) {
    const std::vector<int64_t> rows = loader.rows_of({0, step});
    const Batch batch = batch_of_rows(store, rows, recipe.train.micro_batch_size, mesh.position.dp, mesh.shape.dp);
    if (batch.weight_sum <= 0) continue;
    sum += engine->evaluate(batch, a.per_token.empty() ? Engine::LogprobSink{} : [&](const MicroBatch& m, std::span<const float> logprobs) {
      size_t next = 0;
      for (size_t t = 0; t < m.tokens.size(); ++t) {
        if (m.labels[t] >= 0) documents[m.documents[t]].values.push_back(logprobs[next++]);
      }
    });
    weight += batch.weight_sum;
    tokens += batch.trained_tokens;
  }
  if (!a.per_token.empty()) {
    // Every rank of the last stage holds the documents of its dp share; rank 0 writes them all.
    ordered_json mine = ordered_json::array();
    if (mesh.position.tp == 0) {
      for (const auto& [ordinal, d] : documents) mine.push_back({ordinal, d.values});
    }
    for (const std::string& part : world.gather_strings(mine.dump())) {
      for (const auto& entry : nlohmann::json::parse(part)) documents[entry[0].get<int64_t>()].values = entry[1].get<std::vector<float>>();
    }
    together(world, [&] {
      if (world.rank() == 0) write_per_token(a.per_token, store, documents);
    });
  }
  if (world.rank() != 0) return Exit::done;
  const double loss = sum / weight;
  if (a.recipe.json) {
    std::cout << ordered_json{{"loss", loss}, {"perplexity", std::exp(loss)}, {"tokens", tokens}}.dump() << '\n';
  } else {
    std::cout << fmt::format("loss {:.4f}  perplexity {:.3f}  over {} tokens\n", loss, std::exp(loss), tokens);
  }
  return Exit::done;
}

}  // namespace drover
