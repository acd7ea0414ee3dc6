#include "trainer/planning/plan_json.h"

namespace drover {

namespace {

using nlohmann::ordered_json;

ordered_json json_of(const PlannedMemory& memory) {
  ordered_json ranks = ordered_json::array();
  for (const RankPlan& p : memory.ranks) {
    ranks.push_back({{"rank", p.rank},
                     {"tp", p.position.tp()},
                     {"pp", p.position.pp()},
                     {"dp", p.position.dp()},
                     {"layers", {p.layers.begin, p.layers.end}},
                     {"weights_bytes", p.bytes.weights},
                     {"adapter_bytes", p.bytes.adapter},
                     {"optimizer_bytes", p.bytes.optimizer},
                     {"saved_bytes", p.bytes.saved},
                     {"scratch_bytes", p.bytes.scratch},
                     {"total_bytes", p.bytes.total()}});
    if (memory.before_arenas > 0) ranks.back()["process_bytes"] = memory.before_arenas + p.bytes.total() + p.host_bytes;
    if (p.ring_bytes == 0) continue;
    ranks.back()["streamed"] = {{"ring_bytes", p.ring_bytes},
                                {"host_bytes", p.host_bytes},
                                {"copied_bytes_a_step", p.copied_bytes},
                                {"tokens_together", p.tokens_together},
                                {"tokens_to_hide_copies", p.tokens_to_hide()}};
  }
  return {{"ranks", ranks},
          {"parameters", parameter_count(memory.model)},
          {"trainable_parameters", trainable_parameters(memory.model, memory.adapter)},
          {"schedule", memory.schedule}};
}

ordered_json known(double value) { return value > 0 ? ordered_json(value) : ordered_json(); }

ordered_json json_of(const TimePlan& t, const PlannedMachine& machine) {
  ordered_json ops;
  for (const auto& [op, seconds] : t.ops) ops[std::string(op)] = seconds;
  return {{"calibrated", machine.calibrated},
          {"rates", machine.name},
          {"step_seconds", t.step_seconds},
          {"tokens_per_second", t.tokens_per_second},
          {"tokens_per_step", t.tokens_per_step},
          {"trained_tokens_per_step", t.trained_tokens_per_step},
          {"mfu", known(t.mfu)},
          {"bubble", t.bubble},
          {"exposed_communication_seconds", t.exposed_seconds},
          {"first_step_seconds", known(t.first_step_seconds)},
          {"epoch_seconds", known(t.epoch_seconds)},
          {"steps", t.steps > 0 ? ordered_json(t.steps) : ordered_json()},
          {"run_seconds", known(t.run_seconds)},
          {"validation_seconds", known(t.validation_seconds)},
          {"answer_seconds", known(t.answer_seconds)},
          {"checkpoint_seconds", known(t.checkpoint_seconds)},
          {"export_seconds", known(t.export_seconds)},
          {"left_out", t.left_out},
          {"ops", ops}};
}

}  // namespace

ordered_json plan_json(const PlannedMemory& memory, const TimePlan& time, const PlannedMachine& machine,
                       const DiskPlan& disk) {
  ordered_json plan = json_of(memory);
  plan["time"] = json_of(time, machine);
  plan["disk"] = {{"most_bytes", disk.most_bytes()},        {"checkpoint_bytes", disk.checkpoint_bytes},
                  {"checkpoints", disk.checkpoints},        {"checkpoints_written", disk.written},
                  {"adapter_bytes", disk.adapter_bytes},    {"token_store_bytes", disk.store_bytes},
                  {"weights_read_bytes", disk.weights_read}};
  return plan;
}

}  // namespace drover
