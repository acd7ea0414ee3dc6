// How a whole model is dealt out over weight files: model.safetensors, or shards of bounded size with
// model.safetensors.index.json. Planned before anything is written, so that shards may be written in any order.
#pragma once
#include <string>
#include <vector>

#include "model/files/safetensors_writer.h"

namespace drover {

struct Shard {
  std::string file;                 // its name
  std::vector<TensorSpec> tensors;  // in the writer's order

  int64_t bytes() const;  // of its tensors' data
};

// Groups of tensors go to shards in the order given; a group stays together, and one larger than the limit has a shard
// of its own.
std::vector<Shard> plan_shards(const std::vector<std::vector<TensorSpec>>& groups, int64_t max_shard_bytes);

// The index, where there are several.
void write_index(const fs::path& directory, const std::vector<Shard>& shards);

}  // namespace drover
