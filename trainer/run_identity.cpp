#include "trainer/run_identity.h"

#include "kernels/base/error.h"

namespace drover {

std::map<std::string, std::string> run_identity(const Recipe& recipe, const std::string& model, const std::string& data) {
  std::map<std::string, std::string> id = identity(recipe);
  id.erase("data.train");
  id["model"] = model;
  id["data"] = data;
  return id;
}

namespace {

std::string differences_of(const Checkpoint& checkpoint, const std::map<std::string, std::string>& now) {
  std::string differences;
  for (const auto& [key, value] : now) {
    const auto found = checkpoint.state().identity.find(key);
    const std::string before = found == checkpoint.state().identity.end() ? "(absent)" : found->second;
    if (before != value) differences += fmt::format("\n  {}: {} in the checkpoint, {} now", key, before, value);
  }
  return differences;
}

}  // namespace

void check_same_run(const Checkpoint& checkpoint, const std::map<std::string, std::string>& now, const fs::path& run) {
  const std::string differences = differences_of(checkpoint, now);
  if (differences.empty()) return;
  fail(Exit::bad_recipe, "{} was made by another run than this recipe describes:{}\nEither choose a new output.dir (now {}), or start over with checkpoint.resume: never",
       checkpoint.directory().string(), differences, run.string());
}

void check_same_adapter(const Checkpoint& checkpoint, const Recipe& recipe, const std::string& model) {
  std::map<std::string, std::string> now;
  for (const auto& [key, value] : identity(recipe)) {
    if (key.starts_with("lora.") && key != "lora.dropout") now[key] = value;
  }
  now["model"] = model;
  const std::string differences = differences_of(checkpoint, now);
  if (!differences.empty()) fail(Exit::bad_recipe, "{} was made by another recipe than this one:{}", checkpoint.directory().string(), differences);
}

}  // namespace drover
