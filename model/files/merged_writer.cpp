#include "model/files/merged_writer.h"

#include <algorithm>

#include "kernels/base/require.h"

namespace drover {

MergedWriter::MergedWriter(fs::path directory, const std::vector<TensorSpec>& tensors, int64_t max_shard_bytes)
    : directory_(std::move(directory)) {
  std::vector<std::vector<TensorSpec>> each;
  for (const TensorSpec& tensor : tensors) each.push_back({tensor});
  shards_ = plan_shards(each, max_shard_bytes);
  for (const Shard& shard : shards_) {
    order_.insert(order_.end(), shard.tensors.begin(), shard.tensors.end());
    files_.push_back(shard.file);
  }
  writer_ = std::make_unique<SafetensorsWriter>(directory_ / files_[0], shards_[0].tensors);
}

void MergedWriter::open_shard_of(const std::string& name) {
  const auto& here = shards_[shard_].tensors;
  if (std::any_of(here.begin(), here.end(), [&](const TensorSpec& tensor) { return tensor.name == name; })) return;
  writer_->commit();
  ++shard_;
  require(shard_ < shards_.size(), "tensors are written in the writer's order");
  writer_ = std::make_unique<SafetensorsWriter>(directory_ / files_[shard_], shards_[shard_].tensors);
}

void MergedWriter::write(const std::string& name, const void* data, int64_t bytes) {
  open_shard_of(name);
  writer_->write(name, data, bytes);
}

void MergedWriter::commit() {
  require(shard_ + 1 == shards_.size(), "every shard was written");
  writer_->commit();
  write_index(directory_, shards_);
}

}  // namespace drover
