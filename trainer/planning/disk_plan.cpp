#include "trainer/planning/disk_plan.h"

#include <algorithm>

#include "trainer/setup/engine_settings.h"

namespace drover {

namespace {

constexpr int64_t kCheckpointBytes = 16;  // of a parameter that trains
constexpr int64_t kStoreBytes = 5;        // of a token

// After every so many steps, and at the end.
int64_t written_in(const CheckpointSection& c, int64_t steps) {
  if (steps == 0) return 0;
  return c.every_steps > 0 ? (steps + c.every_steps - 1) / c.every_steps : 1;
}

// At the end, after every so many steps, and the best.
int64_t checkpoints_of(const CheckpointSection& c, int64_t steps) {
  if (c.every_steps > 0 && steps == 0) return c.keep + (c.keep_best ? 1 : 0);
  const int64_t written = std::max<int64_t>(1, written_in(c, steps));
  return std::min(c.keep, written) + (c.keep_best && written > c.keep ? 1 : 0);
}

}  // namespace

int64_t model_file_bytes(const std::string& model, const ModelConfig& config) {
  int64_t bytes = 0;
  std::error_code absent;
  for (const fs::directory_entry& entry : fs::directory_iterator(model, absent)) {
    const auto size = static_cast<int64_t>(entry.file_size(absent));
    if (entry.path().extension() == ".safetensors" && !absent) bytes += size;
  }
  const int64_t number = config.storage_dtype == "float32" ? 4 : 2;
  return bytes > 0 ? bytes : parameter_count(config) * number;
}

DiskPlan plan_disk(const Recipe& recipe, const ModelConfig& model, const AdapterLayout& adapter, const MeshShape& shape,
                   const PreparedData* data, int64_t steps) {
  const int64_t trained = trainable_parameters(model, adapter);
  DiskPlan plan{.checkpoint_bytes = trained * kCheckpointBytes,
                .checkpoints = checkpoints_of(recipe.checkpoint, steps),
                .written = written_in(recipe.checkpoint, steps),
                .adapter_bytes = trained * size_of(dtype_of(recipe.output.adapter_dtype)),
                .weights_read = shape.dp() * model_file_bytes(recipe.model.path, model)};
  if (data != nullptr) {
    plan.store_bytes = kStoreBytes * (data->train.tokens() + (data->validation ? data->validation->tokens() : 0));
  }
  return plan;
}

std::string print_disk(const DiskPlan& p) {
  const auto mb = [](int64_t bytes) {
    return bytes < 10'000'000'000 ? fmt::format("{:.0f} MB", static_cast<double>(bytes) * 1e-6)
                                  : fmt::format("{:.1f} GB", static_cast<double>(bytes) * 1e-9);
  };
  return fmt::format(
      "disk: up to {} in output.dir ({} checkpoint{} of {} and one more while it is written, adapter {}{}); {} of "
      "weights "
      "are read\n",
      mb(p.most_bytes()), p.checkpoints, p.checkpoints == 1 ? "" : "s", mb(p.checkpoint_bytes), mb(p.adapter_bytes),
      p.store_bytes > 0 ? fmt::format(", token store {}", mb(p.store_bytes)) : "", mb(p.weights_read));
}

}  // namespace drover
