#include "trainer/setup/inputs.h"

#include <algorithm>
#include <cmath>

#include "data/loader.h"
#include "kernels/base/log.h"
#include "kernels/comm/agree.h"
#include "trainer/setup/adapter_setup.h"
#include "trainer/setup/engine_settings.h"
#include "trainer/setup/model_check.h"

namespace drover {

ModelConfig model_config_of(const Recipe& recipe, ShapeFrom from) {
  const fs::path path = recipe.model.path;
  if (from == ShapeFrom::directory) {
    if (!fs::is_directory(path)) fail_no_model(path);
  } else if (!fs::exists(path / "config.json")) {
    const std::string name = path.filename().string();
    if (const auto known = known_model(name)) return *known;
    fail(Fault::missing_input, "{} has no config.json, and \"{}\" is not a shape known by name; known are {}",
         path.string(), name, fmt::join(known_model_names(), ", "));
  }
  return read_model_config(path);
}

fs::path tokenizer_directory(const Recipe& recipe) { return recipe.model.tokenizer.value_or(recipe.model.path); }

std::optional<ChatTemplate> chat_template(const Recipe& recipe) {
  using Family = ChatTemplate::Family;
  TemplateChoice choice{};
  if (!read_word(recipe.data.chat_template, choice))
    return ChatTemplate::read(recipe.data.chat_template, tokenizer_directory(recipe));
  switch (choice) {
    case TemplateChoice::automatic: return ChatTemplate::find(tokenizer_directory(recipe));
    case TemplateChoice::llama3_1: return ChatTemplate{Family::llama3_1};
    case TemplateChoice::llama3: return ChatTemplate{Family::llama3};
    case TemplateChoice::chatml: return ChatTemplate{Family::chatml};
  }
  return std::nullopt;
}

PrepareSettings prepare_settings(const Recipe& recipe, const std::vector<DataFile>& files) {
  const DataSection& d = recipe.data;
  PrepareSettings s;
  for (const DataFile& file : files) {
    s.sources.push_back({file.path, file.format == RowFormat::automatic ? d.format : file.format, file.weight});
  }
  s.chat = chat_template(recipe);
  s.date = d.template_date;
  s.train_on = d.train_on;
  s.max_length = d.max_length;
  s.packing = d.packing;
  s.bad_rows = d.bad_rows;
  return s;
}

void warn_about(const PrepareReport& report, const std::string& what, int64_t max_length) {
  for (const std::string& complaint : report.complaints) log::warn("skipped {}", complaint);
  if (report.rows_skipped > static_cast<int64_t>(report.complaints.size()))
    log::warn("and {} more {} rows", report.rows_skipped - static_cast<int64_t>(report.complaints.size()), what);
  if (report.rows_failed > 0) {
    log::warn("{} {} rows say {{\"error\": …}} and were passed over", report.rows_failed, what);
  }
  if (report.cut > 0)
    log::warn("{} {} dialogs are longer than data.max_length {} and were cut at the end", report.cut, what, max_length);
  if (report.cut_before_answers > 0) {
    log::warn("of these, {} begin their answers behind it and train nothing: raise data.max_length",
              report.cut_before_answers);
  }
  if (report.rewritten > 0) {
    log::warn(
        "{} {} answers are not trained: the chat template writes them otherwise once other turns follow (it cuts their "
        "reasoning, for example)",
        report.rewritten, what);
  }
  for (const auto& [field, rows] : report.ignored)
    log::warn("{} {} rows have \"{}\", which means nothing here", rows, what, field);
  if (report.dropped > 0) log::warn("{} {} rows hold no trained token and were left out", report.dropped, what);
}

void check_ids(std::span<const int32_t> ids, const ModelConfig& model, const std::string& what) {
  const auto largest = std::max_element(ids.begin(), ids.end());
  if (largest == ids.end() || *largest < model.vocab) return;
  fail(Fault::bad_data,
       "{}: the tokenizer gives the id {}, and the model has embeddings for {} ids; they do not belong together "
       "(model.path, model.tokenizer)",
       what, *largest, model.vocab);
}

namespace {

TokenStore store_of(const PrepareSettings& settings, const Tokenizer& tokenizer, const fs::path& file, const char* what,
                    Communicator& world) {
  together(world, [&] {
    if (world.rank() != 0) return;
    if (TokenStore::matches(file, store_identity(settings, tokenizer))) return;
    PrepareReport report;
    const TokenStore store = prepare(settings, tokenizer, report);
    warn_about(report, what, settings.max_length);
    make_directories(file.parent_path());
    store.save(file);
  });
  std::optional<TokenStore> store;
  together(world, [&] { store = TokenStore::open(file); });
  log::info("{} data: {} documents in {} rows, {} tokens, {} of them trained", what, store->documents(), store->rows(),
            store->tokens(), store->trained_tokens(0, store->documents()));
  return std::move(*store);
}

// Takes the given share of the documents out for validation: those with the smallest draws of the seed.
std::pair<TokenStore, TokenStore> split_off(const TokenStore& all, double share, uint64_t seed, bool packing,
                                            int64_t max_length) {
  const std::vector<int64_t> order = permutation(all.documents(), seed, -1);
  const size_t count = std::clamp<size_t>(static_cast<size_t>(std::llround(share * static_cast<double>(order.size()))),
                                          1, order.size() - 1);
  std::vector<bool> taken(order.size());
  for (size_t i = 0; i < count; ++i) taken[static_cast<size_t>(order[i])] = true;
  std::pair<TokenStore, TokenStore> parts;
  for (int64_t d = 0; d < all.documents(); ++d) {
    const Document doc = all.document(d);
    (taken[static_cast<size_t>(d)] ? parts.second : parts.first).add_document(doc.ids, doc.trained, doc.weight);
  }
  for (TokenStore* part : {&parts.first, &parts.second}) {
    part->make_rows(packing, max_length);
    part->set_identity(all.identity());
  }
  return parts;
}

void take_share(const Recipe& recipe, PreparedData& data) {
  if (!recipe.data.validation.files.empty() || recipe.data.validation.share <= 0) return;
  if (data.train.documents() < 2) fail(Fault::bad_data, "data.validation.share needs at least two training documents");
  auto [train, validation] =
      split_off(data.train, recipe.data.validation.share, static_cast<uint64_t>(recipe.train.seed), recipe.data.packing,
                recipe.data.max_length);
  data.train = std::move(train);
  data.validation = std::move(validation);
}

void read_sample_prompts(const Recipe& recipe, const Tokenizer& tokenizer, PreparedData& data) {
  if (!recipe.eval.prompts) return;
  const std::optional<ChatTemplate> chat = chat_template(recipe);
  for (const Prompt& prompt : read_prompts(*recipe.eval.prompts)) {
    if (!prompt.adapter.empty()) {
      fail(
          Fault::bad_data,
          "{}: the row asks for the adapter {}, and eval.prompts are answered by the one that trains; take \"adapter\" "
          "out, or use drover generate --adapter NAME=DIR",
          prompt.where, prompt.adapter);
    }
    data.prompts.push_back({prompt, prompt_ids(prompt, tokenizer, chat, recipe.data.template_date)});
  }
}

}  // namespace

PreparedData prepare_data(const Recipe& recipe, const Tokenizer& tokenizer, Communicator& world) {
  const fs::path directory = fs::path(recipe.output.dir) / "data";
  PreparedData data;
  data.train =
      store_of(prepare_settings(recipe, recipe.data.train), tokenizer, directory / "train.h5", "training", world);
  if (!recipe.data.validation.files.empty()) {
    data.validation = store_of(prepare_settings(recipe, recipe.data.validation.files), tokenizer,
                               directory / "validation.h5", "validation", world);
  }
  together(world, [&] {
    take_share(recipe, data);
    read_sample_prompts(recipe, tokenizer, data);
  });
  return data;
}

PreparedData prepare_data_in_memory(const Recipe& recipe, const Tokenizer& tokenizer) {
  PreparedData data;
  PrepareReport report;
  data.train = prepare(prepare_settings(recipe, recipe.data.train), tokenizer, report);
  if (!recipe.data.validation.files.empty())
    data.validation = prepare(prepare_settings(recipe, recipe.data.validation.files), tokenizer, report);
  take_share(recipe, data);
  read_sample_prompts(recipe, tokenizer, data);
  return data;
}

RunInputs open_inputs(const ReadRecipe& read, const Mesh& mesh) {
  const Recipe& recipe = read.recipe;
  Communicator& world = *mesh.world;
  std::optional<ModelDirectory> model;
  std::optional<Tokenizer> tokenizer;
  AdapterConfig adapter;
  AdapterLayout layout;
  LayerRange layers;
  together(world, [&] {
    model.emplace(recipe.model.path);
    const ModelConfig& config = model->config();
    tokenizer.emplace(Tokenizer::open(tokenizer_directory(recipe)));
    adapter = adapter_config(read);
    layout = adapter_layout_of(config, adapter);
    const auto partition = partition_layers(config.layers, mesh.shape.pp(), head_cost_in_layers(config));
    layers = partition[static_cast<size_t>(mesh.position.pp())];
  });
  std::string fingerprint = check_weights_together(*model, layers, world);
  PreparedData data = prepare_data(recipe, *tokenizer, world);
  return {.model = std::move(*model),
          .tokenizer = std::move(*tokenizer),
          .adapter_config = std::move(adapter),
          .layout = std::move(layout),
          .fingerprint = std::move(fingerprint),
          .data = std::move(data)};
}

}  // namespace drover
