#include "trainer/setup/base_format.h"

#include <set>

#include "kernels/base/json.h"
#include "kernels/base/log.h"
#include "trainer/setup/engine_settings.h"
#include "trainer/setup/inputs.h"

namespace drover {

namespace {

constexpr const char* kNumbers = "plain numbers";
constexpr int64_t kMostBytes = int64_t{1} << 20;  // of comparison.json

std::string name_of(const std::optional<StoredScaling>& scaling) {
  if (!scaling) return kNumbers;
  if (scaling->kind == StoredScaling::Kind::nf4) return "nf4";
  const auto [rows, columns] = scaling->blocks;
  if (rows == 0 && columns == 0) return "fp8 with one scale";
  if (rows == 1 && columns == 0) return "fp8 with a scale a row";
  return fmt::format("fp8 in blocks of {} × {}", rows, columns);
}

// What the adapter's comparison.json says; empty where nothing is known. It only informs: a broken one holds nobody up.
std::string trained_over(const fs::path& adapter) {
  const fs::path file = adapter / "comparison.json";
  if (!fs::exists(file)) return {};
  try {
    const Json json = parse_json(read_text(file, kMostBytes), file.string());
    const auto found = json.is_object() ? json.find("base_weights") : json.end();
    const bool known = json.is_object() && found != json.end() && found->is_string();
    return known ? found->get<std::string>() : "";  // older files have no such word
  } catch (const Error& error) {
    log::warn("what the adapter was trained over is not known: {}", error.what());
    return {};
  }
}

}  // namespace

std::string base_format(const ReplicaSettings& s) {
  std::set<std::string> names;
  const std::vector<ParamSpec> table = weight_table(s.model);
  for (const ParamSpec& spec : table) {
    if (spec.layer < 0 || spec.cols == 1) continue;
    names.insert(name_of(held_scaling(s.stored ? s.stored(spec) : std::nullopt, s.weights)));
  }
  return fmt::format("{}", fmt::join(names, " and "));
}

std::optional<OtherBase> other_base(const fs::path& adapter, const Recipe& recipe) {
  const std::string trained = trained_over(adapter);
  if (trained.empty()) return std::nullopt;
  const std::string here = base_format({.model = model_config_of(recipe, ShapeFrom::directory),
                                        .weights = weights_as(recipe.model.weights),
                                        .stored = scaling_of(recipe)});
  if (trained == here) return std::nullopt;
  return OtherBase{clipped(trained), here};
}

std::string said_of(const fs::path& adapter, const OtherBase& other) {
  return fmt::format("{} was trained over a base of {}, and this one is of {}", adapter.string(), other.trained,
                     other.here);
}

}  // namespace drover
