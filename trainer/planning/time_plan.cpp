#include "trainer/planning/time_plan.h"

#include <algorithm>

#include "kernels/count/count.h"
#include "trainer/engine/plan.h"
#include "trainer/planning/pass_time.h"

namespace drover {

namespace {

// Ranks are dealt to nodes in order, the innermost axis first: an axis whose groups reach beyond a node is spread.
SpreadAxes spread_axes(const MeshShape& shape, int ranks_a_node) {
  SpreadAxes spread;
  int reach = 1;
  for (const Axis axis : kAxes) {
    reach *= shape[axis];
    spread[name_of(axis)] = reach > ranks_a_node;
  }
  spread["world"] = shape.size() > ranks_a_node;
  return spread;
}

// A stage on Count that is asked for the records of any batches.
class CountedStage {
 public:
  CountedStage(const EngineSettings& settings, const MeshShape& shape, const MeshPosition& position, const Rates& rates)
      : recorder_(rates, spread_axes(shape, rates.rough().ranks_a_node)),
        backend_(std::make_shared<CountBackend>(settings.traits)),
        nothing_(settings.stored),
        replica_(settings, {backend_, make_count_mesh(shape, position, settings.overlaps_sums, &recorder_)}, nothing_,
                 kPlenty),
        engine_(settings, replica_, kPlenty.saved) {
    backend_->observe(&recorder_);
    engine_.observe(&recorder_);
    recorder_.take();
  }

  StepRecord step(const Batch& batch) {
    const int64_t before = copied();
    engine_.train_step(batch, 1);
    return taken(before);
  }
  StepRecord evaluation(const Batch& batch) {
    const int64_t before = copied();
    engine_.evaluate(batch);
    return taken(before);
  }

 private:
  int64_t copied() const { return replica_.streamed_weights ? replica_.streamed_weights->copied_bytes() : 0; }
  StepRecord taken(int64_t copied_before) {
    StepRecord record = recorder_.take();
    if (copied() > copied_before && record.uploaded_bytes == 0) add_reading(record, copied() - copied_before);
    return record;
  }
  // Where ops run at once, streamed weights are copied between them.
  void add_reading(StepRecord& record, int64_t bytes) const {
    const OpCall call{.op = "copy", .a = {bytes / 2048, 1024}, .dtype = DType::bf16, .bytes = 2 * bytes};
    record.outside += recorder_.rates().seconds(call);
  }

  StepRecorder recorder_;
  std::shared_ptr<CountBackend> backend_;
  NoWeights nothing_;
  Replica replica_;
  Engine engine_;
};

struct Step {
  double seconds = 0;
  Timeline timeline;
  const StepRecord* longest = nullptr;
};

// Of one dp rank.
Step step_of(const std::vector<StepRecord>& stages, const MeshShape& shape, const PlannedMachine& machine) {
  const Rates& rates = machine.rates;
  const bool spread = shape.tp() * shape.cp() * shape.pp() > rates.rough().ranks_a_node;
  Step step;
  step.timeline =
      timeline_of(stages, [&](int64_t bytes) { return rates.message_seconds("exchange", bytes, 2, spread); });
  step.seconds = step.timeline.seconds;
  for (const StepRecord& stage : stages) {
    const double copies =
        rates.rough().upload > 0 ? static_cast<double>(stage.uploaded_bytes) / rates.rough().upload : 0;
    step.seconds = std::max(step.seconds, copies);
    if (step.longest == nullptr || stage.computing() > step.longest->computing()) step.longest = &stage;
  }
  step.seconds += machine.outside_per_call * static_cast<double>(step.longest->calls);
  return step;
}

using Stages = std::vector<std::unique_ptr<CountedStage>>;

double evaluation_seconds(const Stages& stages, const Batch& batch, const MeshShape& shape,
                          const PlannedMachine& machine) {
  std::vector<StepRecord> records;
  for (const auto& stage : stages) records.push_back(stage->evaluation(batch));
  return step_of(records, shape, machine).seconds;
}

void add_validations(TimePlan& plan, const Stages& stages, const MeshShape& shape, const PlannedWork& work,
                     const PlannedMachine& machine) {
  double batches = 0;
  for (const Batch& batch : work.validation) batches += evaluation_seconds(stages, batch, shape, machine);
  if (!work.validation.empty()) {
    plan.validations = work.validations;
    plan.validation_seconds = batches / static_cast<double>(work.validation.size()) * work.validation_batches *
                              static_cast<double>(work.validations);
  }
}

// A run without memory for the passes of generation leaves those out.
void add_comparison(TimePlan& plan, const Stages& stages, const EngineSettings& settings, const MeshShape& shape,
                    const PlannedWork& work, const PlannedMachine& machine) {
  if (!work.compared) return;
  for (const Batch& batch : work.compared->batches)
    plan.export_seconds += 2 * evaluation_seconds(stages, batch, shape, machine);
  const std::vector<int64_t>& served = work.compared->served;
  if (served.empty()) return;
  if (settings.streamed) {
    plan.left_out.emplace_back("scoring the export by generation: passes that read streamed weights are not timed");
    return;
  }
  PassTimes passes(settings, settings.traits, shape, machine.rates, 0, std::ranges::max(served));
  for (const int64_t tokens : served) plan.export_seconds += passes.scoring_seconds(tokens, work.compared->pass_rows);
}

void add_answers(TimePlan& plan, const EngineSettings& settings, const MeshShape& shape, const PlannedWork& work,
                 const PlannedMachine& machine) {
  if (!work.answers) return;
  plan.answer_rounds = work.answers->times;
  if (settings.streamed) {
    plan.left_out.emplace_back("answers to eval.prompts: passes that read streamed weights are not timed");
    return;
  }
  const auto& [prompts, prompt_tokens, tokens, at_once, times] = *work.answers;
  PassTimes passes(settings, settings.traits, shape, machine.rates, at_once, prompt_tokens + tokens);
  plan.answer_seconds = static_cast<double>(times) * passes.requests_seconds(prompts, prompt_tokens, tokens, at_once);
}

void add_writing(TimePlan& plan, const PlannedWork& work, const PlannedMachine& machine) {
  plan.checkpoints = work.checkpoints;
  if (machine.write <= 0) {
    plan.left_out.emplace_back("checkpoints, and writing the adapter: " + machine.why_no_write);
    return;
  }
  plan.checkpoint_seconds =
      static_cast<double>(work.checkpoints) * static_cast<double>(work.checkpoint_bytes) / machine.write;
  plan.export_seconds += static_cast<double>(work.adapter_bytes) / machine.write;
}

int64_t linear_weights(const ModelConfig& model) {
  int64_t weights = 0;
  for (const Projection p : kAllProjections) weights += shape_of(model, p).out * shape_of(model, p).in;
  return weights * model.layers;
}

}  // namespace

double model_flops(const ModelConfig& model, const AdapterLayout& adapter, const Batch& batch) {
  double pairs = 0, tokens = 0;
  for (const MicroBatch& m : batch.micro_batches) {
    tokens += static_cast<double>(m.tokens.size());
    for (const DocumentSpan& s : m.spans)
      pairs += static_cast<double>(s.length) * static_cast<double>(s.length + 1) / 2;
  }
  const double share = batch.tokens > 0 ? tokens / static_cast<double>(batch.tokens) : 0;
  const double frozen = 4 * static_cast<double>(linear_weights(model)) * tokens;
  const double head =
      4 * static_cast<double>(model.vocab * model.hidden) * static_cast<double>(batch.trained_tokens) * share;
  const double adapters = 6 * static_cast<double>(trainable_parameters(model, adapter)) * tokens;
  const double attention = 12 * static_cast<double>(model.heads * model.head_dim * model.layers) * pairs;
  return frozen + head + adapters + attention;
}

TimePlan plan_time(const EngineSettings& settings, const MeshShape& shape, const PlannedWork& work,
                   const PlannedMachine& machine) {
  Stages stages;
  for (int pp = 0; pp < shape.pp(); ++pp)
    stages.push_back(std::make_unique<CountedStage>(settings, shape, MeshPosition{{Axis::pp, pp}}, machine.rates));
  TimePlan plan{.steps = work.steps};
  const double samples = static_cast<double>(work.sampled.size());
  double flops = 0, tokens = 0, trained = 0;
  for (const int64_t sampled : work.sampled) {
    Step slowest;
    std::vector<StepRecord> of_slowest;
    for (int dp = 0; dp < shape.dp(); ++dp) {
      const Batch batch = work.batch(dp, sampled);
      std::vector<StepRecord> records;
      for (const auto& stage : stages) records.push_back(stage->step(batch));
      Step step = step_of(records, shape, machine);
      flops += model_flops(settings.model, settings.adapter, batch);
      if (dp == 0) tokens += static_cast<double>(batch.tokens), trained += static_cast<double>(batch.trained_tokens);
      if (slowest.longest != nullptr && step.seconds <= slowest.seconds) continue;
      slowest = std::move(step);
      of_slowest = std::move(records);
      slowest.longest = &*std::ranges::max_element(of_slowest, {}, &StepRecord::computing);
    }
    plan.step_seconds += slowest.seconds / samples;
    plan.bubble += slowest.timeline.bubble / samples;
    plan.exposed_seconds += slowest.timeline.exposed / samples;
    for (const auto& [op, seconds] : slowest.longest->ops) plan.ops[op] += seconds / samples;
  }
  plan.tokens_per_step = static_cast<int64_t>(tokens / samples);
  plan.trained_tokens_per_step = static_cast<int64_t>(trained / samples);
  plan.tokens_per_second = tokens / samples / plan.step_seconds;
  if (machine.peak > 0)
    plan.mfu = flops / samples / (plan.step_seconds * machine.peak * static_cast<double>(shape.size()));
  if (machine.read > 0) {  // the nodes of a replica share its files
    const int node = std::max(1, machine.rates.rough().ranks_a_node), ranks = shape.size() / shape.dp();
    plan.first_step_seconds = static_cast<double>(work.file_bytes) / ((ranks + node - 1) / node) / machine.read;
  }
  plan.epoch_seconds = static_cast<double>(work.steps_per_epoch) * plan.step_seconds;
  if (work.steps == 0) return plan;
  plan.left_out = work.left_out;
  add_validations(plan, stages, shape, work, machine);
  add_comparison(plan, stages, settings, shape, work, machine);
  add_answers(plan, settings, shape, work, machine);
  add_writing(plan, work, machine);
  plan.run_seconds = plan.first_step_seconds + static_cast<double>(work.steps) * plan.step_seconds +
                     plan.validation_seconds + plan.answer_seconds + plan.checkpoint_seconds + plan.export_seconds;
  return plan;
}

}  // namespace drover
