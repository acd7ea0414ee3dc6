#include "trainer/run_identity.h"

namespace drover {

std::map<std::string, std::string> run_identity(const Recipe& recipe, const std::string& model, const std::string& data) {
  std::map<std::string, std::string> id = identity(recipe);
  id.erase("data.train");
  id["model"] = model;
  id["data"] = data;
  return id;
}

void check_same_run(const Checkpoint& checkpoint, const std::map<std::string, std::string>& now, const fs::path& run) {
  std::string differences;
  for (const auto& [key, value] : now) {
    const auto found = checkpoint.state().identity.find(key);
    const std::string before = found == checkpoint.state().identity.end() ? "(absent)" : found->second;
    if (before != value) differences += fmt::format("\n  {}: {} in the checkpoint, {} now", key, before, value);
  }
  if (differences.empty()) return;
  fail(Exit::bad_recipe, "{} was made by another run than this recipe describes:{}\nEither choose a new output.dir (now {}), or start over with checkpoint.resume: never",
       checkpoint.directory().string(), differences, run.string());
}

}  // namespace drover
