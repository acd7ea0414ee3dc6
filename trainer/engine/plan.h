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
};

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

}  // namespace drover
