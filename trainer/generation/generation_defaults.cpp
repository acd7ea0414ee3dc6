#include "trainer/generation/generation_defaults.h"

#include "kernels/base/error.h"
#include "kernels/base/json.h"

namespace drover {

namespace {

struct Range {
  double least, most;
};

void take(const Json& config, const char* key, const Range& range, const fs::path& file, double& value) {
  const auto found = config.find(key);
  if (found == config.end() || found->is_null()) return;
  const double given = found->is_number() ? found->get<double>() : range.least - 1;
  if (!(given >= range.least && given <= range.most)) {
    fail(Fault::bad_data, "{}: {} is {}; it is a number from {} to {}", file.string(), key, clipped(found->dump()),
         range.least, range.most);
  }
  value = given;
}

}  // namespace

GenerationDefaults generation_defaults(const fs::path& directory) {
  GenerationDefaults defaults;
  const fs::path file = directory / "generation_config.json";
  std::error_code ignored;
  if (!fs::exists(file, ignored)) return defaults;
  const Json config = parse_json(read_text(file, size_t{4} << 20), file.string());
  if (!config.is_object())
    fail(Fault::bad_data, "{}: holds {} where an object is expected", file.string(), type_name(config));
  take(config, "temperature", {0, 100}, file, defaults.temperature);
  take(config, "top_p", {1e-6, 1}, file, defaults.top_p);
  return defaults;
}

}  // namespace drover
