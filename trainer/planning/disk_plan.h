// What a run reads from disks and leaves in output.dir.
#pragma once
#include <algorithm>

#include "configs/recipe.h"
#include "kernels/base/mesh_shape.h"
#include "trainer/setup/inputs.h"

namespace drover {

struct DiskPlan {
  int64_t checkpoint_bytes = 0;  // of one: parameters, both moments, and the adapter in PEFT's form, all in fp32
  int64_t checkpoints = 0;       // that stay
  int64_t written = 0;           // checkpoints in the run, without those of checkpoint.keep_best; 0: not known
  int64_t adapter_bytes = 0;     // of adapter/, without the tokenizer that lies next to it
  int64_t store_bytes = 0;       // of the token store; 0: the data are not known
  int64_t weights_read = 0;      // of the model's files, by all replicas together
  // While a checkpoint is written it is there next to those that stay; while the store is written its tokens are there
  // twice.
  int64_t most_bytes() const {
    return store_bytes + std::max(store_bytes, (checkpoints + 1) * checkpoint_bytes + adapter_bytes);
  }
};

// `steps`: of the run; 0: not known. Where the model's files are not here, they are taken to have all parameters in its
// storage dtype.
DiskPlan plan_disk(const Recipe& recipe, const ModelConfig& model, const AdapterLayout& adapter, const MeshShape& shape,
                   const PreparedData* data, int64_t steps);

// Bytes of the .safetensors in a model's directory; where it is absent, of all parameters in its storage dtype.
int64_t model_file_bytes(const std::string& model, const ModelConfig& config);

std::string print_disk(const DiskPlan& plan);

}  // namespace drover
