// What a run will hold, before it starts: the real engine runs one step on the Count backend, and its arenas'
// high-water marks are the plan.
#pragma once
#include "trainer/engine/engine.h"

namespace drover {

struct RankPlan {
  int rank = 0;
  MeshPosition position;
  LayerRange layers;
  ArenaBytes bytes;
  int64_t flops = 0;  // of one optimizer step of this rank
  // Of streamed weights:
  int64_t ring_bytes = 0;       // of bytes.weights, through which the blocks' weights pass
  int64_t host_bytes = 0;       // where the device has memory of its own: what this process holds of them besides
  int64_t copied_bytes = 0;     // into the ring in one optimizer step, after the first
  int64_t tokens_together = 0;  // that pass a block while its weights are there
  // How many of them compute for as long as the copies take, at kCopyRate and kComputeRate.
  int64_t tokens_to_hide() const;
};
inline constexpr double kCopyRate = 50e9;       // bytes/s from the host's memory: what PCIe 5.0 ×16 gives, roughly
inline constexpr double kComputeRate = 989e12;  // FLOP/s: an H100's bf16 peak, by its data sheet

// A source that reads nothing: weights of plans.
class NoWeights : public WeightSource {
 public:
  explicit NoWeights(ScalingOf stored = {}) : stored_(std::move(stored)) {}
  void read(const ParamSpec&, int64_t, int64_t, Tensor) override {}
  std::optional<StoredScaling> scaling(const ParamSpec& spec) override {
    return stored_ ? stored_(spec) : std::optional<StoredScaling>();
  }

 private:
  ScalingOf stored_;
};

RankPlan plan_rank(const EngineSettings& settings, const MeshShape& shape, const MeshPosition& position);
std::vector<RankPlan> plan_mesh(const EngineSettings& settings, const MeshShape& shape);

// The largest micro-batches there can be: `tokens` tokens in documents of at most `longest`, `trained` of them trained.
Batch worst_batch(int64_t tokens, int64_t trained, int64_t longest, int64_t local_micro_batches, int dp);

// What the stages will do in a step, validated.
std::vector<Schedule> schedule_of_run(const EngineSettings& settings, const MeshShape& shape);

// A table of the ranks' bytes, for people. Ranks that hold the same share a line, unless each is to have its own.
enum class Lines : uint8_t { of_equal_ranks, of_each_rank };
std::string print_plan(const std::vector<RankPlan>& plans, Lines lines = Lines::of_equal_ranks);
// A sentence on the weights that pass through the ring of the rank whose ring is fullest, with a newline; nothing where
// they stay.
std::string print_streaming(const std::vector<RankPlan>& plans);

}  // namespace drover
