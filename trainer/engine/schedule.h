// A pipeline schedule is a list of actions per stage: 1F1B, of which gradient accumulation (one stage) and evaluation
// (no stage trains) are special cases. One stage may take several micro-batches together. The lists that run are the
// lists that `simulate` checks and `print` shows. Source: Narayanan et al., "Memory-Efficient Pipeline-Parallel DNN
// Training", ICML 2021 (PipeDream-Flush).
#pragma once
#include <cstdint>
#include <string>
#include <vector>

namespace drover {

// Stages pass x forward and dx back. Within a micro-batch the actions come in this order.
enum class ActionKind : uint8_t { recv_forward, forward, send_forward, recv_backward, backward, send_backward };

struct Action {
  ActionKind kind;
  int micro_batch;
  bool operator==(const Action&) const = default;
};
bool is_send(ActionKind kind);
bool is_receive(ActionKind kind);
std::string symbol(const Action& action);  // as `print` has it: F0, >B12

struct ScheduleShape {
  int stages = 1;
  int stage = 0;
  int micro_batches = 0;        // may be 0
  int first_trained_stage = 0;  // stages below it run no backward, and it sends no dx; = stages: forward only
  int together = 1;             // of one stage: so many forwards, then their backwards
};

struct Schedule {
  ScheduleShape shape;
  std::vector<Action> actions;
};

Schedule one_f_one_b(const ScheduleShape& shape);
std::vector<Schedule> all_stages(ScheduleShape shape);  // one_f_one_b of every stage

// The most micro-batches whose saved tensors are alive at once, at least 1. Micro-batch i may live in slot i % slots.
int64_t slots(const Schedule& schedule);

// Sends and receives that follow one another start together, so that two stages that send to each other do not wait for
// each other. The group that begins at `begin` ends before this action; a micro-batch is in it once. begin itself where
// no message begins there.
size_t group_end(const Schedule& schedule, size_t begin);
// Likewise of what is computed together.
size_t together_end(const Schedule& schedule, size_t begin);
// Rows of the residual stream alive at once, those on their way out of a group included: micro-batch i may stream
// through buffer i % streams.
int64_t streams(const Schedule& schedule);

std::string print(const std::vector<Schedule>& stages);  // a line per stage, and a legend

// Runs all stages' lists on paper, one action or group of messages after the other: a group ends when all its messages
// have met their other end, as on one queue of a device under rendezvous.
struct Simulation {
  std::vector<std::string> problems;  // empty: every list is complete, in order and ends
  double makespan = 0;                // in units of the costs below; messages take no time
  double idle_fraction = 0;  // 1 - busy/(stages · makespan); at best (p-1)/(m+p-1) for equal stages that all train
};
struct SimulationCosts {
  double forward = 1, backward = 1;
};
Simulation simulate(const std::vector<Schedule>& stages, const SimulationCosts& costs = {});
std::vector<Schedule> validated(
    std::vector<Schedule> stages);  // what was given; an internal error where the simulation finds a problem

struct LayerRange {
  int64_t begin = 0, end = 0;
  int64_t size() const { return end - begin; }
  bool operator==(const LayerRange&) const = default;
};

// Splits layers over stages, at least one each, so that the dearest stage is as cheap as possible; the last one also
// bears the head. Among equals the most even split, and then the one with fewer layers in front, where most
// micro-batches are in flight. Fault::bad_recipe where there are more stages than layers.
std::vector<LayerRange> partition_layers(int64_t layers, int stages, double head_cost_in_layers);

}  // namespace drover
