// The part of the model that a rank holds: consecutive blocks, with the embedding on the first stage and the head on the last.
#pragma once
#include <memory>
#include <optional>

#include "model/head.h"

namespace drover {

// Where frozen weights come from: a Hugging Face directory, a formula (made-up models), or nowhere (plans).
class WeightSource {
 public:
  virtual ~WeightSource() = default;
  // Fills `to` (bf16 or f32, rows × cols) with rows [row, row + to.rows) and columns [col, col + to.cols) of the named tensor.
  virtual void read(const ParamSpec& spec, int64_t row, int64_t col, Tensor to, Backend& backend) = 0;
};

class Stage {
 public:
  // Allocates and loads the weights of this placement; `adapter` may be null.
  Stage(const ModelConfig& config, const Placement& placement, DType dtype, int64_t max_positions, Communicator& tp, Backend& backend,
        Arena& weights, WeightSource& source, AdapterSet* adapter);

  const ModelConfig& config() const { return config_; }
  const Placement& placement() const { return placement_; }
  const std::vector<Block>& blocks() const { return blocks_; }
  const RopeTable& rope() const { return rope_; }
  const std::optional<Head>& head() const { return head_; }
  DType dtype() const { return dtype_; }
  int64_t max_positions() const { return rope_.cosine.rows; }

  void embed(Step& step, Tensor x) const;  // x (T,D); first stage only

 private:
  ModelConfig config_;
  Placement placement_;
  DType dtype_;
  Communicator* tp_;
  Tensor embedding_;  // (V/tp rounded up, D) on the first stage, and on the last when tied
  VocabularyShare share_;
  RopeTable rope_;
  std::vector<Block> blocks_;
  std::optional<Head> head_;
};

// cos and sin of position·inverse frequency, (positions, E/2) row-major, fp32 as transformers computes them, with Llama 3's scaling.
struct RopeValues {
  std::vector<float> cosine, sine;
};
RopeValues rope_values(const ModelConfig& config, int64_t positions);

}  // namespace drover
