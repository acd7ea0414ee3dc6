// Makes and fills the frozen weights of a stage from where they come: by name, each tensor-parallel rank its share.
#pragma once
#include <memory>
#include <unordered_map>

#include "model/block.h"
#include "model/frozen_linear.h"
#include "model/streamed_weights.h"

namespace drover {

struct StageShape {
  const ModelConfig& config;
  Placement placement;
  DType dtype = DType::f32;   // of weights and activations
  int64_t max_positions = 0;  // of rope's table
  WeightsAs weights = WeightsAs::as_is;
  Products products = Products::widened;
};

// What a stage is loaded with. The weights lie in `arena`; `adapter` may be null.
struct Loading {
  Communicator& tp;
  Backend& backend;
  Arena& arena;
  WeightSource& source;
  AdapterSet* adapter = nullptr;
  WeightProvider& provider = resident_weights();  // of the blocks' weights, once they are loaded
  StreamedWeights* streamed = nullptr;            // it has the blocks' weights pass, and is their provider
  int threads = 1;                                // that make codes of plain numbers
};

class WeightLoader {
 public:
  WeightLoader(const StageShape& shape, const Loading& loading);

  Norm norm(const std::string& name);
  // (share.count, D), where rows beyond the share's valid ones are 0
  std::shared_ptr<const Weight> vocabulary(const std::string& name);
  // Over the embedding's weight where the head is tied to it.
  LinearGroup head(const std::shared_ptr<const Weight>& embedding);
  void make_ring();  // before the first block, where the blocks' weights pass
  Block block(int64_t layer, size_t index);
  RopeTable rope();

 private:
  const ParamSpec& spec_of(const std::string& name) const;
  struct Planned {
    FrozenLinear linear;
    WeightShape shape;
  };
  Planned planned(int64_t layer, const std::vector<Projection>& projections) const;
  LinearGroup group(int64_t layer, size_t block, std::vector<Projection> projections);
  void keep_pace();

  StageShape shape_;
  Loading with_;
  std::shared_ptr<const std::vector<ParamSpec>> table_;
  std::unordered_map<std::string, const ParamSpec*> by_name_;
  bool in_step_ = true;  // with the other ranks of the stage
};

}  // namespace drover
