#include "trainer/setup.h"

#include <algorithm>
#include <cmath>

#include "kernels/base/log.h"
#include "kernels/comm/agree.h"
#include "trainer/answering.h"

namespace drover {

DType dtype_of(Precision precision) { return precision == Precision::bf16 ? DType::bf16 : DType::f32; }

AdapterConfig adapter_config(const ReadRecipe& read) {
  const LoraSection& l = read.recipe.lora;
  AdapterConfig config;
  config.r = l.r;
  config.alpha = l.alpha;
  config.dropout = l.dropout;
  config.use_rslora = l.use_rslora;
  if (l.target_modules.names.empty()) {
    config.target_modules = l.target_modules.pattern;
  } else {
    config.target_modules = l.target_modules.names;
  }
  for (const auto& [key, value] : l.rank_pattern) config.rank_pattern.emplace_back(key, static_cast<int64_t>(value));
  config.alpha_pattern = l.alpha_pattern;
  config.base_model_name_or_path = read.recipe.model.path;
  if (!l.init_from) return config;

  AdapterConfig first = adapter_config_in(*l.init_from);
  const auto same = [&](const char* key, bool equal) {
    const std::string name = std::string("lora.") + key;
    if (read.origins.count(name) != 0 && !equal) {
      fail(Exit::bad_recipe, "{} ({}) differs from the adapter in lora.init_from {}; leave the key out, or start without init_from", name, read.origins.at(name),
           *l.init_from);
    }
  };
  same("r", config.r == first.r);
  same("alpha", config.alpha == first.alpha);
  same("use_rslora", config.use_rslora == first.use_rslora);
  same("target_modules", config.target_modules == first.target_modules);
  same("rank_pattern", config.rank_pattern == first.rank_pattern);
  same("alpha_pattern", config.alpha_pattern == first.alpha_pattern);
  first.base_model_name_or_path = config.base_model_name_or_path;
  first.dropout = config.dropout;
  return first;
}

AdapterConfig adapter_config_in(const fs::path& directory) {
  const fs::path file = directory / "adapter_config.json";
  return parse_adapter_config(read_text(file, size_t{1} << 20), file.string());
}

AdapterLayout adapter_layout_of(const ModelConfig& model, const AdapterConfig& adapter) {
  const AdapterMatcher matcher(adapter);
  return adapter_layout(model, [&](const std::string& path) -> std::optional<LowRankSpec> {
    const auto target = matcher.match(path);
    if (!target) return std::nullopt;
    return LowRankSpec{target->r, static_cast<float>(target->scale)};
  });
}

ModelConfig model_config_of(const Recipe& recipe, bool known_names_too) {
  const fs::path path = recipe.model.path;
  if (!known_names_too && !fs::is_directory(path)) fail(Exit::missing_input, "no model directory {}", path.string());
  if (known_names_too && !fs::exists(path / "config.json")) {
    if (const auto known = known_model(path.filename().string())) return *known;
    fail(Exit::missing_input, "{} has no config.json, and \"{}\" is not a shape known by name; known are {}", path.string(), path.filename().string(),
         fmt::join(known_model_names(), ", "));
  }
  return read_model_config(path);
}

fs::path tokenizer_directory(const Recipe& recipe) { return recipe.model.tokenizer.value_or(recipe.model.path); }

std::optional<ChatTemplate> chat_template(const Recipe& recipe) {
  using Family = ChatTemplate::Family;
  switch (recipe.data.chat_template) {
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
  if (report.rows_skipped > static_cast<int64_t>(report.complaints.size())) log::warn("and {} more {} rows", report.rows_skipped - static_cast<int64_t>(report.complaints.size()), what);
  if (report.cut > 0) log::warn("{} {} dialogs are longer than data.max_length {} and were cut at the end", report.cut, what, max_length);
  if (report.dropped > 0) log::warn("{} {} rows hold no trained token and were left out", report.dropped, what);
}

void check_ids(std::span<const int32_t> ids, const ModelConfig& model, const std::string& what) {
  const auto largest = std::max_element(ids.begin(), ids.end());
  if (largest == ids.end() || *largest < model.vocab) return;
  fail(Exit::bad_data, "{}: the tokenizer gives the id {}, and the model has embeddings for {} ids; they do not belong together (model.path, model.tokenizer)", what, *largest, model.vocab);
}

namespace {

TokenStore store_of(const PrepareSettings& settings, const Tokenizer& tokenizer, const fs::path& file, const char* what, Communicator& world) {
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
  log::info("{} data: {} documents in {} rows, {} tokens, {} of them trained", what, store->documents(), store->rows(), store->tokens(),
            store->trained_tokens(0, store->documents()));
  return std::move(*store);
}

// Takes the given share of the documents out for validation: those with the smallest draws of the seed.
std::pair<TokenStore, TokenStore> split_off(const TokenStore& all, double share, uint64_t seed, bool packing, int64_t max_length) {
  const std::vector<int64_t> order = permutation(all.documents(), seed, -1);
  const size_t count = std::clamp<size_t>(static_cast<size_t>(std::llround(share * static_cast<double>(order.size()))), 1, order.size() - 1);
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
  if (data.train.documents() < 2) fail(Exit::bad_data, "data.validation.share needs at least two training documents");
  auto [train, validation] = split_off(data.train, recipe.data.validation.share, static_cast<uint64_t>(recipe.train.seed), recipe.data.packing, recipe.data.max_length);
  data.train = std::move(train);
  data.validation = std::move(validation);
}

void read_sample_prompts(const Recipe& recipe, const Tokenizer& tokenizer, PreparedData& data) {
  if (!recipe.eval.prompts) return;
  const std::optional<ChatTemplate> chat = chat_template(recipe);
  for (const Prompt& prompt : read_prompts(*recipe.eval.prompts)) data.prompts.push_back({prompt, prompt_ids(prompt, tokenizer, chat, recipe.data.template_date)});
}

}  // namespace

PreparedData prepare_data(const Recipe& recipe, const Tokenizer& tokenizer, Communicator& world) {
  const fs::path directory = fs::path(recipe.output.dir) / "data";
  PreparedData data;
  data.train = store_of(prepare_settings(recipe, recipe.data.train), tokenizer, directory / "train.h5", "training", world);
  if (!recipe.data.validation.files.empty()) {
    data.validation = store_of(prepare_settings(recipe, recipe.data.validation.files), tokenizer, directory / "validation.h5", "validation", world);
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
  if (!recipe.data.validation.files.empty()) data.validation = prepare(prepare_settings(recipe, recipe.data.validation.files), tokenizer, report);
  take_share(recipe, data);
  read_sample_prompts(recipe, tokenizer, data);
  return data;
}

int64_t total_steps(const Recipe& recipe, int64_t steps_per_epoch) {
  if (recipe.train.max_steps) return *recipe.train.max_steps;
  return std::max<int64_t>(1, static_cast<int64_t>(std::ceil(recipe.train.epochs.value_or(1) * static_cast<double>(steps_per_epoch) - 1e-9)));
}

OptimizerSettings optimizer_settings(const OptimSection& o, int64_t total_steps) {
  std::vector<double> rates(kFactors.size(), 1);
  rates[static_cast<size_t>(Factor::b)] = o.lora_plus_ratio;
  const int64_t warmup = o.warmup_steps ? *o.warmup_steps : warmup_steps_of(o.warmup_ratio.value_or(0), total_steps);
  return {.learning_rate = {o.schedule, o.learning_rate, warmup, total_steps},
          .beta1 = o.betas[0],
          .beta2 = o.betas[1],
          .eps = o.eps,
          .weight_decay = o.weight_decay,
          .max_grad_norm = o.max_grad_norm,
          .group_rates = std::move(rates)};
}

double head_cost_in_layers(const ModelConfig& m) {
  int64_t layer = 0;
  for (Projection p : kAllProjections) layer += shape_of(m, p).out * shape_of(m, p).in;
  return static_cast<double>(m.vocab * m.hidden) / static_cast<double>(layer);
}

EngineSettings engine_settings(const Recipe& recipe, const ModelConfig& model, const AdapterLayout& layout,
                               const MeshShape& mesh, const PreparedData* data) {
  const std::string why = why_not_tp(model, mesh.tp());
  if (!why.empty()) fail(Exit::bad_recipe, "{}", why);
  EngineSettings s;
  s.model = model;
  s.adapter = layout;
  s.partition = partition_layers(model.layers, mesh.pp(), head_cost_in_layers(model));
  s.dtype = dtype_of(recipe.train.dtype);
  s.max_positions = recipe.data.max_length;
  s.micro_batch_tokens = recipe.data.max_length * recipe.train.micro_batch_size;
  s.local_micro_batches = recipe.train.global_batch_size / (recipe.train.micro_batch_size * mesh.dp());
  s.deterministic = recipe.train.deterministic;
  s.recompute = recipe.memory.activation_checkpointing == ActivationCheckpointing::full;
  s.dropout = static_cast<float>(recipe.lora.dropout);
  s.seed = static_cast<uint64_t>(recipe.train.seed);
  if (recipe.data.max_length > model.max_positions) {
    fail(Exit::bad_recipe, "data.max_length {} is more than the model's max_position_embeddings {}", recipe.data.max_length, model.max_positions);
  }
  if (data == nullptr) return s;

  check_ids(data->train.ids(), model, "the training data");
  if (data->validation) check_ids(data->validation->ids(), model, "the validation data");
  for (const SamplePrompt& p : data->prompts) check_ids(p.ids, model, p.prompt.where);
  const LoaderSettings loading{recipe.train.micro_batch_size, recipe.train.global_batch_size, recipe.data.shuffle, static_cast<uint64_t>(recipe.train.seed), 0, 1};
  const Loader loader(data->train, loading);
  const int64_t steps = total_steps(recipe, loader.steps_per_epoch());
  s.optimizer = optimizer_settings(recipe.optim, steps);
  const Loader::Largest largest = loader.largest_micro_batch(steps);
  s.max_positions = data->train.longest_document();
  if (data->validation) {
    const TokenStore& v = *data->validation;
    LoaderSettings in_order = loading;
    in_order.shuffle = false;
    const Loader validation(v, in_order);
    const Loader::Largest other = validation.largest_micro_batch(validation.steps_per_epoch());
    s.evaluation_tokens = other.tokens;
    s.evaluation_trained = other.trained_tokens;
    s.max_positions = std::max(s.max_positions, v.longest_document());
  }
  s.micro_batch_tokens = largest.tokens;
  s.micro_batch_trained = largest.trained_tokens;
  if (data->prompts.empty()) return s;

  if (mesh.pp() != 1) {
    fail(Exit::bad_recipe,
         "eval.prompts needs parallel.pp 1: a pipeline does not answer prompts while it trains; leave eval.prompts out "
         "and use drover generate");
  }
  int64_t longest = 0;
  for (const SamplePrompt& p : data->prompts) longest = std::max(longest, static_cast<int64_t>(p.ids.size()));
  const int64_t tokens = longest + kSampleAnswerTokens;
  if (tokens > model.max_positions) {
    fail(Exit::bad_data, "{}: a prompt of {} tokens and an answer of {} do not fit the model's {} positions", *recipe.eval.prompts, longest, kSampleAnswerTokens, model.max_positions);
  }
  const int64_t share = (static_cast<int64_t>(data->prompts.size()) + mesh.dp() - 1) / mesh.dp();
  s.answers = {.sequences = std::min(kSampleSequences, share), .tokens = tokens};
  s.max_positions = std::max(s.max_positions, tokens);
  return s;
}

}  // namespace drover
