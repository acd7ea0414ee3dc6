#include "trainer/export/model_card.h"

#include "kernels/base/hash.h"
#include "kernels/base/json.h"
#include "kernels/base/log.h"
#include "kernels/base/program.h"
#include "trainer/export/adapter_targets.h"
#include "trainer/export/logprob_sample.h"

namespace drover {

namespace {

constexpr const char* kPage = "README.md";
constexpr std::string_view kMarkBegin = "<!-- written by drover export; unchanged while its SHA-256 is ",
                           kMarkEnd = " -->\n";

// A text on one line, that ends neither a cell of a table nor code.
std::string cell(std::string text) {
  for (char& c : text) {
    if (c == '\n' || c == '\r' || c == '|' || c == '`') c = ' ';
  }
  return clipped(text, 400);
}
std::string code(const std::string& text) { return "`" + cell(text) + "`"; }
std::string quoted(const std::string& text) {
  return Json(text).dump(-1, ' ', false, Json::error_handler_t::replace);  // in YAML too
}

std::string front_matter(const std::string& base, const std::optional<LlamaLicence>& licence) {
  return fmt::format(
      "---\nbase_model: {}\nbase_model_relation: adapter\nlibrary_name: peft\npipeline_tag: text-generation\n{}tags:\n"
      "- lora\n- peft\n- drover\n---\n",
      quoted(base), licence ? fmt::format("license: {}\n", licence->hub_word()) : "");
}

std::string of_identity(const CheckpointState& state, const std::string& key) {
  const auto found = state.identity.find(key);
  return found == state.identity.end() || found->second.empty() ? "not known" : found->second;
}

std::string files_of(const std::vector<DataFile>& files) {
  constexpr size_t kShown = 6;
  std::vector<std::string> names;
  for (const DataFile& file : files) {
    const fs::path path = file.path;
    std::string name = code((path.has_filename() ? path : path.parent_path()).filename().string());
    if (file.repeat != 1) name += fmt::format(" × {}", file.repeat);
    if (file.weight != 1) name += fmt::format(" (weight {})", file.weight);
    if (names.size() < kShown) names.push_back(std::move(name));
  }
  if (files.size() > kShown) names.push_back(fmt::format("{} more", files.size() - kShown));
  return fmt::format("{}", fmt::join(names, ", "));
}

std::string validation_of(const Recipe& recipe) {
  const Validation& v = recipe.data.validation;
  if (!v.files.empty()) return files_of(v.files);
  return v.share > 0 ? fmt::format("a share of {} of the training rows", v.share) : "none";
}

std::string facts_table(const CardFacts& f, const std::string& base) {
  const Recipe& r = f.recipe.recipe;
  const AdapterConfig& a = f.state.adapter;
  const std::string targets =
      std::holds_alternative<std::string>(a.target_modules)
          ? std::get<std::string>(a.target_modules)
          : fmt::format("{}", fmt::join(std::get<AdapterConfig::Names>(a.target_modules), ", "));
  const auto loss = [](const std::optional<double>& value) { return value ? fmt::format("{:.4f}", *value) : "none"; };
  std::string text = "| | |\n|---|---|\n";
  const auto row = [&](const char* name, const std::string& value) {
    text += fmt::format("| {} | {} |\n", name, value);
  };
  row("base", fmt::format("{}, {} layers of width {}, {} parameters", code(base), f.base.layers, f.base.hidden,
                          parameter_count(f.base)));
  row("base, fingerprint of its weights", code(of_identity(f.state, "model")));
  row("training data", files_of(r.data.train));
  row("training data as tokenised, SHA-256", code(of_identity(f.state, "data")));
  row("validation data", validation_of(r));
  row("adapter", fmt::format("LoRA{}, r {}, alpha {}, dropout {}, on {}{}", a.use_rslora ? " (rsLoRA)" : "", a.r,
                             a.alpha, r.lora.dropout, code(targets),
                             a.rank_pattern.empty() && a.alpha_pattern.empty() ? "" : ", with patterns"));
  row("optimizer", fmt::format("AdamW, learning rate {}, {}, weight decay {}", r.optim.learning_rate,
                               word_of(r.optim.schedule), r.optim.weight_decay));
  row("batch", fmt::format("{} rows of up to {} tokens, {}, seed {}", r.train.global_batch_size, r.data.max_length,
                           word_of(r.train.dtype), r.train.seed));
  row("steps done", fmt::format("{}", f.state.step));
  row("loss of the last step, of validation", loss(f.losses.training) + ", " + loss(f.losses.validation));
  return text;
}

std::string comparison_table(const Comparison& c) {
  if (c.tokens == 0) return fmt::format("Not compared: {}.\n", c.why.empty() ? "" : cell(c.why.begin()->second));
  std::string text = fmt::format(
      "ln p of {} trained tokens of the {} data, in {}, before and after writing (comparison.json):\n\n"
      "| computed by | mean ln p | ‖Δ‖/‖·‖ | largest Δ |\n|---|---|---|---|\n| {} | {:.6f} | | |\n",
      c.tokens, c.rows, c.dtype == DType::bf16 ? "bf16" : "fp32",
      c.of_run ? "the engine that trained" : "the training engine, with the checkpoint", c.logprob);
  const auto row = [&](const char* name, const std::optional<Compared>& part) {
    if (part)
      text += fmt::format("| {} | {:.6f} | {:.1e} | {:.1e} |\n", name, part->logprob, part->distance, part->largest);
  };
  row("the same, with these files", c.reloaded);
  row("serving, with these files", c.served);
  row("serving, merged into the base's number types", c.merged);
  for (const auto& [part, why] : c.why) text += fmt::format("\nNot compared, {}: {}.\n", part, cell(why));
  return text;
}

std::string use(const CardFacts& f, const std::string& base) {
  const AdapterConfig& a = f.state.adapter;
  const std::string model = shell_quoted(base);
  std::string commands;
  const auto line = [&](const std::string& text) { commands += text + "\n"; };
  line(fmt::format("drover chat --model {} --adapter tuned=DIR", model));
  line(fmt::format("drover generate --model {} --adapter DIR --prompt \"…\"", model));
  line(fmt::format("drover serve --model {} --adapter tuned=DIR", model));
  if (!AdapterMatcher(a).match(kHeadModule)) {  // which both of these leave out
    if (a.rank_pattern.empty() && a.alpha_pattern.empty())
      line(fmt::format("vllm serve {} --enable-lora --lora-modules tuned=DIR", model));
    line(fmt::format("drover export --model {} --from DIR --adapter tuned.gguf --target llamacpp", model));
    line("llama-server -m BASE.gguf --lora tuned.gguf");
  }
  return fmt::format(
      "With this directory as `DIR`; {}.\n\n```\n{}```\n\n```python\nfrom peft import AutoPeftModelForCausalLM\n\n"
      "model = AutoPeftModelForCausalLM.from_pretrained(\"DIR\")\n```\n",
      loads_in(a), commands);
}

std::string licence_section(const std::optional<LlamaLicence>& licence) {
  if (!licence)
    return "The base's licence is not known here. What comes of a base is bound by its licence: look there.\n";
  return fmt::format(
      "**{}**\n\nThe base comes under the Llama {} Community License, and so does what is made from it. Whoever gives "
      "this adapter on gives a copy of that licence with it, keeps the sentence above in plain sight, and begins the "
      "model's name with “{}”.\n",
      licence->sentence(), licence->version, licence->name_begin());
}

std::string mark_of(const std::string& text) { return fmt::format("{}{}{}", kMarkBegin, sha256_hex(text), kMarkEnd); }

}  // namespace

std::string model_card(const CardFacts& facts) {
  const fs::path path = facts.recipe.recipe.model.path;
  const std::string base = name_of_base(path);
  const std::optional<LlamaLicence> licence = licence_of(path, facts.base);
  const std::string text = fmt::format(
      "{}# LoRA adapter of {}\n\n{}\n## Does it compute what was trained?\n{}\n## Use\n{}\n## Recipe\n<details>"
      "<summary>every key; of paths the last part</summary>\n\n```yaml\n{}```\n</details>\n\n## Licence\n{}\n",
      front_matter(base, licence), cell(base), facts_table(facts, base), comparison_table(facts.comparison),
      use(facts, base), published_recipe(facts.recipe), licence_section(licence));
  return text + mark_of(text);
}

bool is_own_card(const std::string& text) {
  const size_t mark = text.rfind(kMarkBegin);
  return mark != std::string::npos && text.substr(mark) == mark_of(text.substr(0, mark));
}

void write_pages(const fs::path& directory, bool has_page, const CardFacts& facts) {
  write_text(directory / "comparison.json", comparison_json(facts.comparison));
  if (!facts.comparison.sample.empty()) write_text(directory / kSampleFile, facts.comparison.sample);
  if (!has_page) return write_text(directory / kPage, model_card(facts));
  log::info("README.md of the adapter is somebody's own, or was changed, and stays as it is");
}

bool keep_page(const fs::path& from, const fs::path& to) {
  std::error_code ignored;
  if (!fs::is_regular_file(from / kPage, ignored)) return false;
  const std::string text = read_text(from / kPage);
  if (is_own_card(text)) return false;
  write_text(to / kPage, text);
  return true;
}

}  // namespace drover
