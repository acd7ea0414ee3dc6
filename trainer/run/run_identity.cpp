#include "trainer/run/run_identity.h"

#include <algorithm>

#include "kernels/base/error.h"

namespace drover {

namespace {

constexpr const char *kValidation = "data.validation", *kNoShare = "no share of the training rows",
                     *kRepeats = "data.train: repeat", *kValidationContent = "validation data",
                     *kScales = "scales of the fp8 that is made";

}  // namespace

std::map<std::string, std::string> run_identity(const Recipe& recipe, const std::string& model, const std::string& data,
                                                const std::string& validation) {
  std::map<std::string, std::string> id = identity(recipe);
  id.erase("data.train");
  TemplateChoice word{};
  if (!read_word(recipe.data.chat_template, word)) id.erase("data.template");  // its text is in the data's identity
  const Validation& v = recipe.data.validation;
  id[kValidation] = v.files.empty() && v.share > 0 ? fmt::format("{{share: {}}}", v.share) : kNoShare;
  std::vector<double> repeats;
  for (const DataFile& file : recipe.data.train) repeats.push_back(file.repeat);
  if (std::ranges::any_of(repeats, [](double repeat) { return repeat != 1; }))
    id[kRepeats] = fmt::format("{}", fmt::join(repeats, ", "));
  if (recipe.model.weights == WeightFormat::fp8) id[kScales] = "powers of two";
  id["model"] = model;
  id["data"] = data;
  id[kValidationContent] = validation;
  return id;
}

namespace {

// A path as a recipe prints it, without its quotes.
fs::path path_of(const std::string& printed) {
  if (!printed.starts_with('"')) return printed;
  std::string path;
  for (size_t i = 1; i + 1 < printed.size(); ++i) path += printed[i] == '\\' ? printed[++i] : printed[i];
  return path;
}

// One directory may be written relative or absolute, or through a link.
bool same_value(const std::string& key, const std::string& a, const std::string& b) {
  if (a == b) return true;
  if (key != "lora.init_from") return false;
  std::error_code ignored;
  return fs::equivalent(path_of(a), path_of(b), ignored);
}

std::string differences_of(const Checkpoint& checkpoint, const std::map<std::string, std::string>& now) {
  std::map<std::string, std::string> defaults = identity(Recipe{});
  defaults[kValidation] = kNoShare;
  defaults[kRepeats] = "1";
  defaults[kScales] = "largest / 448";
  std::string differences;
  for (const auto& [key, value] : now) {
    if (key == kValidationContent) continue;
    // A key that the checkpoint's program did not know has its default: what it did.
    const auto in = [&, &key = key](const std::map<std::string, std::string>& values, const std::string& otherwise) {
      const auto found = values.find(key);
      return found == values.end() ? otherwise : found->second;
    };
    const std::string before = in(checkpoint.state().identity, in(defaults, "(absent)"));
    if (!same_value(key, before, value))
      differences += fmt::format("\n  {}: {} in the checkpoint, {} now", key, before, value);
  }
  return differences;
}

}  // namespace

void check_same_run(const Checkpoint& checkpoint, const std::map<std::string, std::string>& now, const fs::path& run) {
  const std::string differences = differences_of(checkpoint, now);
  if (differences.empty()) return;
  fail(Fault::bad_recipe,
       "{} was made by another run than this recipe describes:{}\nEither choose a new output.dir (now {}), or start "
       "over with checkpoint.resume: never",
       checkpoint.directory().string(), differences, run.string());
}

bool validates_otherwise(const Checkpoint& checkpoint, const std::map<std::string, std::string>& now) {
  const auto& before = checkpoint.state().identity;
  const auto then = before.find(kValidationContent), here = now.find(kValidationContent);
  return then != before.end() && here != now.end() && then->second != here->second;
}

void check_same_adapter(const Checkpoint& checkpoint, const Recipe& recipe, const std::string& model) {
  std::map<std::string, std::string> now;
  for (const auto& [key, value] : identity(recipe)) {
    if (key.starts_with("lora.") && key != "lora.dropout") now[key] = value;
  }
  now["model"] = model;
  const std::string differences = differences_of(checkpoint, now);
  if (!differences.empty())
    fail(Fault::bad_recipe, "{} was made by another recipe than this one:{}", checkpoint.directory().string(),
         differences);
}

}  // namespace drover
