#include "trainer/engine/plan.h"

#include <algorithm>

#include "kernels/base/error.h"
#include "kernels/base/units.h"
#include "kernels/count/count.h"
#include "trainer/generation/sample_answers.h"

namespace drover {

Batch worst_batch(int64_t tokens, int64_t trained, int64_t longest, int64_t local_micro_batches, int dp) {
  Batch batch;
  batch.total = local_micro_batches * dp;
  batch.weight_sum = static_cast<double>(tokens * batch.total);
  batch.tokens = tokens * batch.total;
  batch.trained_tokens = trained * batch.total;
  const size_t n = static_cast<size_t>(tokens);
  MicroBatch m{.tokens = std::vector<int32_t>(n),
               .labels = std::vector<int32_t>(n),
               .weights = std::vector<float>(n, 1.0f),
               .positions = std::vector<int32_t>(n),
               .documents = std::vector<int32_t>(n)};
  std::fill(m.labels.begin() + trained, m.labels.end(), -1);
  for (int64_t begin = 0; begin < tokens; begin += longest)
    m.spans.push_back({begin, std::min(longest, tokens - begin)});
  for (int64_t i = 0; i < local_micro_batches; ++i) {
    m.index = i;
    batch.micro_batches.push_back(m);
  }
  return batch;
}

RankPlan plan_rank(const EngineSettings& settings, const MeshShape& shape, const MeshPosition& position) {
  const auto backend = std::make_shared<CountBackend>(settings.traits);
  NoWeights nothing;
  Replica replica(settings, {backend, make_count_mesh(shape, position, settings.overlaps_sums)}, nothing, kPlenty);
  Engine engine(settings, replica, kPlenty.saved);
  const Capacity& capacity = settings.capacity;
  const MicroBatchSize evaluation = capacity.evaluation.value_or(capacity.micro_batch);
  const auto batch_of = [&](const MicroBatchSize& size, int64_t longest) {
    return worst_batch(size.tokens, size.trained_tokens, longest, capacity.local_micro_batches, shape.dp());
  };
  if (settings.train) engine.train_step(batch_of(capacity.micro_batch, settings.max_positions), 1);
  const int64_t flops = backend->total_flops();
  engine.evaluate(batch_of(evaluation, settings.max_positions));
  if (capacity.answers) rehearse_sample_answers(replica, *capacity.answers);
  ArenaBytes bytes = engine.peak();
  if (replica.device.mesh.tp().overlaps_sums()) {
    // The same in two halves, as Engine::Part has them. Wherever the cut is, the two tensors of c and of T - c rows are
    // together rounded up at most once more than those of the halves.
    replica.arenas.scratch.second_stack().add_to_each(Arena::kAlign);
    if (settings.train) engine.train_step(batch_of(capacity.micro_batch, (capacity.micro_batch.tokens + 1) / 2), 1);
    engine.evaluate(batch_of(evaluation, (evaluation.tokens + 1) / 2));
    bytes.scratch = engine.peak().scratch;
  }
  return {rank_of(position, shape), position, settings.partition[static_cast<size_t>(position.pp())], bytes, flops};
}

std::vector<RankPlan> plan_mesh(const EngineSettings& settings, const MeshShape& shape) {
  std::vector<RankPlan> plans;
  for (int rank = 0; rank < shape.size(); ++rank) {
    const MeshPosition position = position_of(rank, shape);
    const MeshPosition first{{Axis::pp, position.pp()}};  // of its stage
    if (position == first) {
      plans.push_back(plan_rank(settings, shape, position));
    } else {  // the ranks of a stage hold the same bytes
      RankPlan plan = plans[static_cast<size_t>(rank_of(first, shape))];
      plan.rank = rank;
      plan.position = position;
      plans.push_back(plan);
    }
  }
  return plans;
}

std::vector<Schedule> schedule_of_run(const EngineSettings& s, const MeshShape& shape) {
  return validated(all_stages(schedule_shape(s, shape, s.capacity.local_micro_batches, s.train)));
}

std::string print_plan(const std::vector<RankPlan>& plans) {
  const auto mib = [](int64_t bytes) { return fmt::format("{:.1f}", drover::mib(bytes)); };
  std::string text = fmt::format("{:>5} {:>9} {:>10} {:>12} {:>10} {:>10} {:>10} {:>10} {:>12}\n", "rank", "tp.pp.dp",
                                 "layers", "weights", "adapter", "optimizer", "saved", "scratch", "total MiB");
  for (const RankPlan& p : plans) {
    text +=
        fmt::format("{:>5} {:>9} {:>10} {:>12} {:>10} {:>10} {:>10} {:>10} {:>12}\n", p.rank,
                    fmt::format("{}.{}.{}", p.position.tp(), p.position.pp(), p.position.dp()),
                    fmt::format("{}-{}", p.layers.begin, p.layers.end - 1), mib(p.bytes.weights), mib(p.bytes.adapter),
                    mib(p.bytes.optimizer), mib(p.bytes.saved), mib(p.bytes.scratch), mib(p.bytes.total()));
  }
  return text;
}

}  // namespace drover
