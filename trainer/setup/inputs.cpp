#include "trainer/setup/inputs.h"

#include <algorithm>
#include <cmath>
#include <set>

#include "data/loader.h"
#include "kernels/base/log.h"
#include "kernels/comm/agree.h"
#include "model/files/known_scaling.h"
#include "model/files/quantisation_config.h"
#include "trainer/setup/adapter_setup.h"
#include "trainer/setup/engine_settings.h"
#include "trainer/setup/model_check.h"
#include "trainer/setup/untrained_tokens.h"

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

ScalingOf scaling_of(const Recipe& recipe) {
  const fs::path path = recipe.model.path;
  if (!fs::exists(path / "config.json")) {
    return
        [name = path.filename().string()](const ParamSpec& spec) { return known_scaling(name, spec.layer, spec.name); };
  }
  if (!read_quantisation(path)) return {};
  return [model = std::make_shared<ModelDirectory>(path)](const ParamSpec& spec) { return model->scaling(spec.name); };
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
    s.sources.push_back(
        {file.path, file.format == RowFormat::automatic ? d.format : file.format, file.weight, file.repeat});
  }
  s.fields = d.fields_of_rows;
  s.special = d.special;
  s.chat = chat_template(recipe);
  s.date = d.template_date;
  s.train_on = d.train_on;
  s.max_length = d.max_length;
  s.packing = d.packing;
  s.bad_rows = d.bad_rows;
  return s;
}

std::string formats_of(const PrepareReport& report) {
  std::vector<std::string> words;
  for (const RowFormat format : report.formats) {
    const std::string word = format == RowFormat::automatic ? "no rows" : word_of(format);
    if (std::ranges::find(words, word) == words.end()) words.push_back(word);
  }
  return fmt::format("{}", fmt::join(words, ", "));
}

namespace {

// Of the rows that were not read as they stand.
void add_warnings_of_rows(const PrepareReport& report, const std::string& what, std::vector<std::string>& lines) {
  for (const std::string& complaint : report.complaints) lines.push_back("skipped " + complaint);
  if (report.rows_skipped > static_cast<int64_t>(report.complaints.size())) {
    lines.push_back(
        fmt::format("and {} more {} rows", report.rows_skipped - static_cast<int64_t>(report.complaints.size()), what));
  }
  const auto say = [&](int64_t count, std::string_view text) {
    if (count > 0) lines.push_back(fmt::format("{} {} {}", count, what, text));
  };
  say(report.rows_failed, "rows say {\"error\": …} and were passed over");
  for (const auto& [field, rows] : report.ignored)
    say(rows, fmt::format("rows have \"{}\", which means nothing here", field));
  for (const std::string& field : report.unmet_fields)
    lines.push_back(fmt::format("data.fields: none of the {} rows has \"{}\"", what, field));
  say(report.rendered,
      "texts hold spellings of control tokens, as a rendered dialog does; they are read as letters. Give the dialogs "
      "as "
      "\"messages\", or set data.special: true, which makes them control tokens");
  say(report.alpaca_prompts,
      "rows of alpaca are Alpaca's own prompt and its output, since the model has no chat template; data.template "
      "gives "
      "it one");
  say(report.within_token, "completions begin within a token that the end of their prompt shares; it is trained");
}

}  // namespace

std::vector<std::string> warnings_of(const PrepareReport& report, const std::string& what, int64_t max_length) {
  std::vector<std::string> lines;
  add_warnings_of_rows(report, what, lines);
  if (report.cut > 0) {
    lines.push_back(fmt::format("{} {} rows are longer than data.max_length {} and were cut at the end", report.cut,
                                what, max_length));
  }
  if (report.cut_before_answers > 0) {
    lines.push_back(fmt::format("of these, {} begin their answers behind it and train nothing: raise data.max_length",
                                report.cut_before_answers));
  }
  if (report.rewritten > 0) {
    lines.push_back(fmt::format(
        "{} {} answers are not trained: the chat template writes them otherwise once other turns follow (it "
        "cuts their reasoning, for example)",
        report.rewritten, what));
  }
  if (report.dropped > 0)
    lines.push_back(fmt::format("{} {} rows hold no trained token and were left out", report.dropped, what));
  return lines;
}

void check_ids(std::span<const int32_t> ids, const ModelConfig& model, const std::string& what) {
  const auto largest = std::max_element(ids.begin(), ids.end());
  if (largest == ids.end() || *largest < model.vocab) return;
  fail(Fault::bad_data,
       "{}: the tokenizer gives the id {}, and the model has embeddings for {} ids; they do not belong together "
       "(model.path, model.tokenizer)",
       what, *largest, model.vocab);
}

void check_ids(const TokenStore& store, const ModelConfig& model, const std::string& what) {
  store.each_document([&](const Document& document) { check_ids(document.ids, model, what); });
}

namespace {

// Prepared, with what is to be said of it.
TokenStore prepared(const PrepareSettings& settings, const Tokenizer& tokenizer, const char* what,
                    TokenStore store = {}) {
  PrepareReport report;
  store = prepare(settings, tokenizer, report, std::move(store));
  store.set_notes(formats_of(report),
                  fmt::format("{}", fmt::join(warnings_of(report, what, settings.max_length), "\n")));
  return store;
}

void say_notes(const TokenStore& store) {
  for (std::string_view rest = store.notes(); !rest.empty();) {
    const size_t end = std::min(rest.find('\n'), rest.size());
    log::warn("{}", rest.substr(0, end));
    rest.remove_prefix(std::min(end + 1, rest.size()));
  }
}

TokenStore store_of(const PrepareSettings& settings, const Tokenizer& tokenizer, const fs::path& file, const char* what,
                    Communicator& world) {
  together(world, [&] {
    if (world.rank() != 0) return;
    if (TokenStore::matches(file, store_identity(settings, tokenizer))) return;
    const fs::path directory = file.parent_path();
    const bool made = !fs::exists(directory);
    make_directories(directory);
    try {
      prepared(settings, tokenizer, what, TokenStore::made_in(directory)).save(file);
    } catch (...) {
      std::error_code ignored;
      if (made) fs::remove(directory, ignored);  // only where nothing is in it
      throw;
    }
  });
  std::optional<TokenStore> store;
  together(world, [&] { store = TokenStore::open(file); });
  if (world.rank() == 0) say_notes(*store);
  log::info("{} data: rows of {}: {} documents in {} rows, {} tokens, {} of them trained", what, store->formats(),
            store->documents(), store->rows(), store->tokens(), store->trained_tokens(0, store->documents()));
  return std::move(*store);
}

// Takes the given share of the data's rows out for validation, with all pieces of a long text: those with the smallest
// draws of the seed.
std::pair<TokenStore, TokenStore> split_off(const TokenStore& all, double share, uint64_t seed, bool packing,
                                            int64_t max_length) {
  std::vector<int64_t> rows;
  for (int64_t d = 0; d < all.documents(); ++d) rows.push_back(all.document(d).origin.row);
  std::ranges::sort(rows);
  rows.erase(std::unique(rows.begin(), rows.end()), rows.end());
  if (rows.size() < 2) {
    fail(Fault::bad_data,
         "data.validation: a share needs at least two rows of training data, and there is {}; a long text is one row",
         rows.size());
  }
  const std::vector<int64_t> order = permutation(static_cast<int64_t>(rows.size()), seed, -1);
  const size_t count = std::clamp<size_t>(static_cast<size_t>(std::llround(share * static_cast<double>(order.size()))),
                                          1, order.size() - 1);
  std::set<int64_t> taken;
  for (size_t i = 0; i < count; ++i) taken.insert(rows[static_cast<size_t>(order[i])]);
  std::vector<int64_t> train, validation;
  for (int64_t d = 0; d < all.documents(); ++d)
    (taken.contains(all.document(d).origin.row) ? validation : train).push_back(d);
  std::pair<TokenStore, TokenStore> parts{all.with_documents(train), all.with_documents(validation)};
  parts.first.set_repeats(all.repeats());
  for (TokenStore* part : {&parts.first, &parts.second}) {
    part->make_rows(packing, max_length);
    part->set_identity(all.identity());
  }
  return parts;
}

void take_share(const Recipe& recipe, PreparedData& data) {
  if (!recipe.data.validation.files.empty() || recipe.data.validation.share <= 0) return;
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
  data.train = prepared(prepare_settings(recipe, recipe.data.train), tokenizer, "training");
  if (!recipe.data.validation.files.empty())
    data.validation = prepared(prepare_settings(recipe, recipe.data.validation.files), tokenizer, "validation");
  take_share(recipe, data);
  read_sample_prompts(recipe, tokenizer, data);
  return data;
}

PreparedData stored_data(const Recipe& recipe, const fs::path& directory) {
  const auto stored = [&](const char* name) {
    if (!fs::exists(directory / name)) fail(Fault::missing_input, "there is no {}", (directory / name).string());
    return TokenStore::open(directory / name);
  };
  PreparedData data;
  data.train = stored("train.h5");
  if (!recipe.data.validation.files.empty()) data.validation = stored("validation.h5");
  take_share(recipe, data);
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
  together(world, [&] {
    if (world.rank() != 0) return;  // of the first stage, which has the embedding
    const std::vector<std::string> untrained = untrained_tokens(data.train, *tokenizer, *model);
    if (!untrained.empty()) log::warn("{}", untrained_warning(untrained));
  });
  return {.model = std::move(*model),
          .tokenizer = std::move(*tokenizer),
          .adapter_config = std::move(adapter),
          .layout = std::move(layout),
          .fingerprint = std::move(fingerprint),
          .data = std::move(data)};
}

}  // namespace drover
