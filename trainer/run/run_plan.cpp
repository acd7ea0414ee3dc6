#include "trainer/run/run_plan.h"

#include <algorithm>
#include <cmath>

#include "kernels/base/json.h"
#include "kernels/base/log.h"
#include "kernels/base/units.h"
#include "kernels/comm/agree.h"
#include "kernels/comm/gather.h"
#include "trainer/engine/plan.h"
#include "trainer/planning/plan_json.h"
#include "trainer/planning/planned_run.h"
#include "trainer/run/plan_check.h"
#include "trainer/run/process_memory.h"

namespace drover {

namespace {

constexpr int64_t kFarBytes = int64_t{64} << 20;  // from a plan; what is less is the libraries'

// The run is complete without it.
void write_reached(const fs::path& file, const std::vector<ReachedMemory>& ranks) {
  try {
    write_text(file, reached_json(ranks));
  } catch (const Error& error) {
    if (error.fault() != Fault::io) throw;
    log::warn("the memory that ranks reached is not kept: {}", error.what());
  }
}

// Of rank 0.
void plan_times(const PlannedMemory& memory, const Recipe& recipe, const EngineSettings& settings,
                const PreparedData& data, const Device& device, const MachineOfRun& machine_of, RunPlan& plan) {
  const MeshShape& shape = device.mesh.shape;
  try {
    const PlannedMachine machine = machine_of(device);
    const TimePlan time = plan_time(settings, shape, planned_work(recipe, settings, shape, &data), machine);
    plan.calibrated = machine.calibrated;
    plan.step_seconds = time.step_seconds;
    plan.tokens_per_second = time.tokens_per_second;
    const DiskPlan disk = plan_disk(recipe, settings.model, settings.adapter, shape, &data, time.steps);
    plan.json = plan_json(memory, time, machine, disk).dump(1) + "\n";
    if (machine.calibrated) log::write(print_time(time, shape, machine.name));
  } catch (const Error& error) {
    if (error.fault() == Fault::internal) throw;
    log::warn("how long the run takes is not planned: {}", error.what());
  }
}

}  // namespace

RunPlan plan_run(const Recipe& recipe, const EngineSettings& settings, const PreparedData& data, const Device& device,
                 const MachineOfRun& machine_of) {
  const Mesh& mesh = device.mesh;
  Communicator& world = *mesh.world;
  Backend& backend = *device.backend;
  const int64_t held = held_process_bytes(), tokens = settings.capacity.most_tokens();
  const std::vector<RankPlan> plans = plan_mesh(settings, mesh.shape);
  const int64_t all = parameter_count(settings.model), trained = trainable_parameters(settings.model, settings.adapter);
  log::info("\n{} parameters, {} of them train ({:.2f} %)\n{}{}", all, trained,
            100.0 * static_cast<double>(trained) / static_cast<double>(all), print_plan(plans), print_streaming(plans));
  const std::string schedule = print(schedule_of_run(settings, mesh.shape));
  if (mesh.shape.pp() > 1) log::info("schedule of the stages:\n{}", schedule);
  const RankPlan& mine = plans[static_cast<size_t>(rank_of(mesh.position, mesh.shape))];
  RunPlan plan{.arenas = mine.bytes};
  const int64_t process_bytes = predicted_process_bytes(held, plan.arenas, backend, tokens);
  plan.process_bytes = largest(world, process_bytes + mine.host_bytes);
  log::info("a process will hold about {:.0f} MiB at its peak, of that {:.0f} MiB in arenas", mib(plan.process_bytes),
            mib(plan.arenas.total()));
  if (world.rank() == 0) {
    const bool on_host = !backend.traits().own_memory;
    const int64_t before_arenas = on_host ? predicted_process_bytes(held, {}, backend, tokens) : 0;
    const PlannedMemory memory{plans, settings.model, settings.adapter, schedule, before_arenas};
    plan_times(memory, recipe, settings, data, device, machine_of, plan);
  }
  check_fits_machine(world, plan.process_bytes);
  together(world, [&] { check_fits_memory(plan.arenas, backend); });
  return plan;
}

std::string reached_json(const std::vector<ReachedMemory>& ranks) {
  OrderedJson listed = OrderedJson::array();
  for (size_t rank = 0; rank < ranks.size(); ++rank) {
    const auto& [arenas, process_bytes] = ranks[rank];
    listed.push_back({{"rank", rank},
                      {"weights_bytes", arenas.weights},
                      {"adapter_bytes", arenas.adapter},
                      {"optimizer_bytes", arenas.optimizer},
                      {"saved_bytes", arenas.saved},
                      {"scratch_bytes", arenas.scratch},
                      {"total_bytes", arenas.total()},
                      {"process_bytes", process_bytes}});
  }
  return OrderedJson{{"ranks", listed}}.dump(1) + "\n";
}

void say_reached(const RunPlan& plan, Engine& engine, double tokens_per_second, const fs::path& file) {
  Communicator& world = *engine.replica().device.mesh.world;
  const ReachedMemory mine{engine.peak(), peak_process_bytes()};
  const std::vector<ReachedMemory> ranks = gather(world, mine);
  if (world.rank() == 0 && !file.empty()) write_reached(file, ranks);
  log::info("arenas of rank 0: {} bytes planned, {} bytes reached", plan.arenas.total(), engine.peak().total());
  const int64_t reached = std::ranges::max(ranks, {}, &ReachedMemory::process_bytes).process_bytes;
  log::info("a process: {:.0f} MiB predicted, {:.0f} MiB reached", mib(plan.process_bytes), mib(reached));
  const double apart = static_cast<double>(reached) / static_cast<double>(plan.process_bytes) - 1;
  if (std::abs(apart) > PlanCheck::kFar && std::abs(reached - plan.process_bytes) > kFarBytes)
    log::warn("a process' memory is {:+.0f} % from its plan", 100 * apart);
  if (plan.calibrated && tokens_per_second > 0) {
    log::info("speed: {:.0f} tokens/s planned, {:.0f} tokens/s reached ({:+.1f} %)", plan.tokens_per_second,
              tokens_per_second, 100 * (tokens_per_second / plan.tokens_per_second - 1));
  }
}

}  // namespace drover
