#include "trainer/engine/plan.h"

#include <algorithm>
#include <cmath>
#include <set>

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

namespace {

void take_streaming(const Replica& replica, RankPlan& plan) {
  if (!replica.streamed_weights) return;
  plan.ring_bytes = replica.streamed_weights->ring_bytes();
  plan.host_bytes = replica.streamed_weights->host_bytes();
}

// A step like those that follow the first one, which begins with an empty ring.
void plan_copies(Engine& engine, const Batch& batch, RankPlan& plan) {
  const EngineSettings& settings = engine.settings();
  const StreamedWeights& streamed = *engine.replica().streamed_weights;
  const int64_t before = streamed.copied_bytes();
  engine.train_step(batch, 2);
  plan.copied_bytes = streamed.copied_bytes() - before;
  const ScheduleShape shape = schedule_shape(settings, engine.replica().device.mesh.shape,
                                             static_cast<int64_t>(batch.micro_batches.size()), true);
  plan.tokens_together = shape.together * settings.capacity.micro_batch.tokens;
}

// Of micro-batches that pass the blocks together, the second part of one computes next to the first part of the next
// one: both are as large as they can be.
Batch cut_unevenly(Batch batch, int64_t least_rows) {
  bool near = true;
  for (MicroBatch& m : batch.micro_batches) {
    const int64_t tokens = static_cast<int64_t>(m.tokens.size()),
                  least = std::min(std::max(least_rows, tokens / 4), tokens / 2), cut = near ? least : tokens - least;
    m.spans = {{0, cut}, {cut, tokens - cut}};
    near = !near;
  }
  return batch;
}

}  // namespace

int64_t RankPlan::tokens_to_hide() const {
  if (copied_bytes == 0 || flops == 0) return 0;
  const double copying = static_cast<double>(copied_bytes) / kCopyRate,
               computing = static_cast<double>(flops) / kComputeRate;
  return static_cast<int64_t>(std::ceil(static_cast<double>(tokens_together) * copying / computing));
}

RankPlan plan_rank(const EngineSettings& settings, const MeshShape& shape, const MeshPosition& position) {
  const auto backend = std::make_shared<CountBackend>(settings.traits);
  NoWeights nothing(settings.stored);
  Replica replica(settings, {backend, make_count_mesh(shape, position, settings.overlaps_sums)}, nothing, kPlenty);
  Engine engine(settings, replica, kPlenty.saved);
  const Capacity& capacity = settings.capacity;
  const MicroBatchSize evaluation = capacity.evaluation.value_or(capacity.micro_batch);
  const auto batch_of = [&](const MicroBatchSize& size, int64_t longest) {
    return worst_batch(size.tokens, size.trained_tokens, longest, capacity.local_micro_batches, shape.dp());
  };
  if (settings.train) engine.train_step(batch_of(capacity.micro_batch, settings.max_positions), 1);
  RankPlan plan{rank_of(position, shape), position, settings.partition[static_cast<size_t>(position.pp())], {}, 0};
  plan.flops = backend->total_flops();
  take_streaming(replica, plan);
  if (settings.streamed && settings.train)
    plan_copies(engine, batch_of(capacity.micro_batch, settings.max_positions), plan);
  engine.evaluate(batch_of(evaluation, settings.max_positions));
  if (capacity.answers) rehearse_sample_answers(replica, *capacity.answers);
  ArenaBytes bytes = engine.peak();
  if (replica.device.mesh.tp().overlaps_sums()) {
    // The same in two halves, as Engine::Part has them. Wherever the cut is, the two tensors of c and of T - c rows are
    // together rounded up at most once more than those of the halves.
    replica.arenas.scratch.second_stack().add_to_each(Arena::kAlign);
    const auto in_parts = [&](const MicroBatchSize& size, bool train) {
      const Batch halves = batch_of(size, (size.tokens + 1) / 2);
      if (schedule_shape(settings, shape, capacity.local_micro_batches, train).together == 1) return halves;
      return cut_unevenly(halves, settings.least_part_rows);
    };
    if (settings.train) engine.train_step(in_parts(capacity.micro_batch, true), 1);
    engine.evaluate(in_parts(evaluation, false));
    bytes.scratch = engine.peak().scratch;
  }
  plan.bytes = bytes;
  return plan;
}

namespace {

void plan_weights(const EngineSettings& settings, const MeshShape& shape, RankPlan& plan) {
  NoWeights nothing(settings.stored);
  const Replica replica(settings, count_device(settings.traits, shape, plan.position), nothing, kPlenty);
  plan.bytes.weights = replica.peak().weights;
  take_streaming(replica, plan);
}

}  // namespace

// The ranks of a stage hold the same bytes, but for the scales of quantised weights: a cut inside a block leaves both
// sides its scale.
std::vector<RankPlan> plan_mesh(const EngineSettings& settings, const MeshShape& shape) {
  std::vector<RankPlan> plans;
  for (int rank = 0; rank < shape.size(); ++rank) {
    const MeshPosition position = position_of(rank, shape);
    const MeshPosition first{{Axis::pp, position.pp()}};  // of its stage
    const MeshPosition same{{Axis::tp, position.tp()}, {Axis::pp, position.pp()}};
    if (position == first) {
      plans.push_back(plan_rank(settings, shape, position));
      continue;
    }
    RankPlan plan = plans[static_cast<size_t>(rank_of(position == same ? first : same, shape))];
    plan.rank = rank;
    plan.position = position;
    if (position == same) plan_weights(settings, shape, plan);
    plans.push_back(plan);
  }
  return plans;
}

std::vector<Schedule> schedule_of_run(const EngineSettings& s, const MeshShape& shape) {
  return validated(all_stages(schedule_shape(s, shape, s.capacity.local_micro_batches, s.train)));
}

namespace {

// "0-7", "0, 8, 16 and 5 more"
std::string ranges_of(const std::vector<int>& ascending) {
  constexpr size_t kShown = 3;
  std::vector<std::pair<int, int>> ranges;
  for (const int number : ascending) {
    if (!ranges.empty() && ranges.back().second + 1 == number) {
      ranges.back().second = number;
    } else {
      ranges.emplace_back(number, number);
    }
  }
  std::vector<std::string> texts;
  for (const auto& [first, last] : ranges) {
    if (texts.size() == kShown) {
      int more = 0;
      for (size_t i = kShown; i < ranges.size(); ++i) more += ranges[i].second - ranges[i].first + 1;
      return fmt::format("{} and {} more", fmt::join(texts, ", "), more);
    }
    texts.push_back(first == last ? fmt::format("{}", first) : fmt::format("{}-{}", first, last));
  }
  return fmt::format("{}", fmt::join(texts, ", "));
}

struct Line {
  const RankPlan* plan;  // of the first of them
  std::vector<int> ranks;
  std::set<int> tp, pp, dp;
  void add(const RankPlan& p) {
    ranks.push_back(p.rank);
    tp.insert(p.position.tp()), pp.insert(p.position.pp()), dp.insert(p.position.dp());
  }
  std::string position() const {
    const auto range = [](const std::set<int>& of) { return ranges_of({of.begin(), of.end()}); };
    return fmt::format("{}.{}.{}", range(tp), range(pp), range(dp));
  }
};

}  // namespace

std::string print_plan(const std::vector<RankPlan>& plans, Lines lines) {
  std::vector<Line> table;
  for (const RankPlan& p : plans) {
    const auto equal = std::ranges::find_if(table, [&](const Line& line) {
      return line.plan->bytes == p.bytes && line.plan->layers == p.layers && lines == Lines::of_equal_ranks;
    });
    Line& line = equal == table.end() ? table.emplace_back(Line{&p, {}, {}, {}, {}}) : *equal;
    line.add(p);
  }
  size_t rank_width = 5, position_width = 9;
  for (const Line& line : table) {
    rank_width = std::max(rank_width, ranges_of(line.ranks).size());
    position_width = std::max(position_width, line.position().size());
  }
  const auto mib = [](int64_t bytes) { return fmt::format("{:.1f}", drover::mib(bytes)); };
  std::string text =
      fmt::format("{:>{}} {:>{}} {:>10} {:>12} {:>10} {:>10} {:>10} {:>10} {:>12}\n", "rank", rank_width, "tp.pp.dp",
                  position_width, "layers", "weights", "adapter", "optimizer", "saved", "scratch", "total MiB");
  for (const Line& line : table) {
    const RankPlan& p = *line.plan;
    text += fmt::format(
        "{:>{}} {:>{}} {:>10} {:>12} {:>10} {:>10} {:>10} {:>10} {:>12}\n", ranges_of(line.ranks), rank_width,
        line.position(), position_width, fmt::format("{}-{}", p.layers.begin, p.layers.end - 1), mib(p.bytes.weights),
        mib(p.bytes.adapter), mib(p.bytes.optimizer), mib(p.bytes.saved), mib(p.bytes.scratch), mib(p.bytes.total()));
  }
  return text;
}

std::string print_streaming(const std::vector<RankPlan>& plans) {
  const RankPlan& p = *std::ranges::max_element(plans, {}, &RankPlan::ring_bytes);
  if (p.ring_bytes == 0) return {};
  const auto gb = [](int64_t bytes) { return fmt::format("{:.2f} GB", static_cast<double>(bytes) / 1e9); };
  if (p.host_bytes == 0) {
    return fmt::format(
        "the layers' frozen weights pass through {} on each rank (counted in weights); {} are read from the model's "
        "files in a step\n",
        gb(p.ring_bytes), gb(p.copied_bytes));
  }
  return fmt::format(
      "the layers' frozen weights pass through {} on each GPU (counted in weights), from {} of the host's memory for "
      "each; {} are copied in a step. {} tokens pass a layer together; copies hide behind computing from {} tokens on, "
      "taking {:.0f} GB/s to the GPU and {:.0f} TFLOP/s\n",
      gb(p.ring_bytes), gb(p.host_bytes), gb(p.copied_bytes), p.tokens_together, p.tokens_to_hide(), kCopyRate / 1e9,
      kComputeRate / 1e12);
}

}  // namespace drover
