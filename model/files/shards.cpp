#include "model/files/shards.h"

#include "kernels/base/json.h"

namespace drover {

namespace {

int64_t bytes_of(const std::vector<TensorSpec>& tensors) {
  int64_t bytes = 0;
  for (const TensorSpec& tensor : tensors) bytes += tensor.bytes();
  return bytes;
}

}  // namespace

int64_t Shard::bytes() const { return bytes_of(tensors); }

std::vector<Shard> plan_shards(const std::vector<std::vector<TensorSpec>>& groups, int64_t max_shard_bytes) {
  require(!groups.empty() && max_shard_bytes > 0, "a model has tensors and shards have room");
  std::vector<Shard> shards(1);
  int64_t used = 0;
  for (const std::vector<TensorSpec>& group : groups) {
    const int64_t bytes = bytes_of(group);
    if (!shards.back().tensors.empty() && used + bytes > max_shard_bytes) {
      shards.emplace_back();
      used = 0;
    }
    shards.back().tensors.insert(shards.back().tensors.end(), group.begin(), group.end());
    used += bytes;
  }
  for (size_t i = 0; i < shards.size(); ++i) {
    sort_canonically(shards[i].tensors);
    shards[i].file = shards.size() == 1 ? "model.safetensors"
                                        : fmt::format("model-{:05}-of-{:05}.safetensors", i + 1, shards.size());
  }
  return shards;
}

void write_index(const fs::path& directory, const std::vector<Shard>& shards) {
  if (shards.size() == 1) return;
  Json map = Json::object();
  int64_t total = 0;
  for (const Shard& shard : shards) {
    for (const TensorSpec& tensor : shard.tensors) map[tensor.name] = shard.file;
    total += shard.bytes();
  }
  write_text(directory / "model.safetensors.index.json",
             Json{{"metadata", {{"total_size", total}}}, {"weight_map", std::move(map)}}.dump(2) + "\n");
}

}  // namespace drover
