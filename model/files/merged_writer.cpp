#include "model/files/merged_writer.h"

#include <algorithm>

#include "kernels/base/json.h"

namespace drover {

MergedWriter::MergedWriter(fs::path directory, const std::vector<TensorSpec>& tensors, int64_t max_shard_bytes)
    : directory_(std::move(directory)) {
  require(!tensors.empty() && max_shard_bytes > 0, "a model has tensors and shards have room");
  int64_t used = 0;
  shards_.emplace_back();
  for (const TensorSpec& tensor : tensors) {
    if (!shards_.back().empty() && used + tensor.bytes() > max_shard_bytes) {
      shards_.emplace_back();
      used = 0;
    }
    shards_.back().push_back(tensor);
    used += tensor.bytes();
  }
  for (size_t i = 0; i < shards_.size(); ++i) {
    sort_canonically(shards_[i]);
    order_.insert(order_.end(), shards_[i].begin(), shards_[i].end());
    files_.push_back(shards_.size() == 1 ? "model.safetensors"
                                         : fmt::format("model-{:05}-of-{:05}.safetensors", i + 1, shards_.size()));
  }
  writer_ = std::make_unique<SafetensorsWriter>(directory_ / files_[0], shards_[0]);
}

void MergedWriter::open_shard_of(const std::string& name) {
  const auto& here = shards_[shard_];
  if (std::any_of(here.begin(), here.end(), [&](const TensorSpec& tensor) { return tensor.name == name; })) return;
  writer_->commit();
  ++shard_;
  require(shard_ < shards_.size(), "tensors are written in the writer's order");
  writer_ = std::make_unique<SafetensorsWriter>(directory_ / files_[shard_], shards_[shard_]);
}

void MergedWriter::write(const std::string& name, const void* data, int64_t bytes) {
  open_shard_of(name);
  writer_->write(name, data, bytes);
}

void MergedWriter::commit() {
  require(shard_ + 1 == shards_.size(), "every shard was written");
  writer_->commit();
  if (shards_.size() == 1) return;
  Json map = Json::object();
  int64_t total = 0;
  for (size_t i = 0; i < shards_.size(); ++i) {
    for (const TensorSpec& tensor : shards_[i]) {
      map[tensor.name] = files_[i];
      total += tensor.bytes();
    }
  }
  write_text(directory_ / "model.safetensors.index.json",
             Json{{"metadata", {{"total_size", total}}}, {"weight_map", std::move(map)}}.dump(2) + "\n");
}

}  // namespace drover
