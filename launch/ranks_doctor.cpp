#include "launch/ranks_doctor.h"

#include <sched.h>
#include <unistd.h>

#include <algorithm>
#include <fstream>
#include <iostream>
#include <map>
#include <nlohmann/json.hpp>
#include <thread>

#include "configs/recipe.h"
#include "kernels/base/hash.h"
#include "kernels/base/host_name.h"
#include "kernels/base/log.h"
#include "kernels/base/watchdog.h"
#include "kernels/comm/agree.h"
#include "kernels/comm/gather.h"
#include "kernels/devices/devices.h"
#include "launch/open_device.h"
#include "trainer/setup/engine_settings.h"
#include "trainer/setup/inputs.h"

namespace drover {

namespace {

using nlohmann::ordered_json;

constexpr double kAnswerSeconds = 20, kPartSeconds = 25;  // for all ranks' answers; for the device and each axis
constexpr int64_t kProbeBytes = 16 << 20;
constexpr int kRepeats = 5;

std::string first_line_of(const fs::path& file) {
  std::string line;
  std::ifstream in(file);
  std::getline(in, line);
  return line;
}

// What this rank is and runs: what is compared comes first.
ordered_json card_of(const Process& process) {
  const CudaStatus cuda = cuda_status();
  const int device = process.mpi.local_rank % std::max(1, cuda.devices);
  const CudaIdentity gpu = cuda.usable ? cuda_identity(device) : CudaIdentity{};
  const std::string node = host_name();
  unsigned cpu = 0, numa = 0;
  getcpu(&cpu, &numa);
  const std::string module = cuda_module_file(), driver = first_line_of("/sys/module/nvidia/version"),
                    gpu_numa = gpu.pci.empty() ? "" : first_line_of("/sys/bus/pci/devices/" + gpu.pci + "/numa_node");
  std::string nccl;
  try {
    if (cuda.usable) nccl = nccl_version();
  } catch (const Error&) {
    nccl = "none";
  }
  return {{"build", (sha256_file("/proc/self/exe") + (module.empty() ? "" : sha256_file(module))).substr(0, 12)},
          {"gpu", cuda.usable ? gpu.name : "none"},
          {"driver", driver.empty() ? "none" : driver},
          {"libraries", cuda.usable ? cuda_libraries() + (nccl.empty() ? "" : ", NCCL " + nccl) : ""},
          {"threads", process.threads},
          {"node", node},
          {"numa", gpu_numa.empty() ? static_cast<int>(numa) : std::atoi(gpu_numa.c_str())},
          {"uuid", gpu.uuid}};
}
constexpr const char* kCompared[] = {"build", "gpu", "driver", "libraries"};

// "rank 3 differs in driver: 570.1, the others have 580.2"
std::vector<std::string> differences(const std::vector<ordered_json>& cards) {
  std::vector<std::string> found;
  for (const char* key : kCompared) {
    std::map<std::string, std::vector<int>> ranks;
    for (size_t r = 0; r < cards.size(); ++r) ranks[cards[r][key].dump()].push_back(static_cast<int>(r));
    const auto common = std::ranges::max_element(ranks, {}, [](const auto& entry) { return entry.second.size(); });
    for (const auto& [value, odd] : ranks) {
      if (value != common->first)
        found.push_back(fmt::format("rank{} {} differ{} in {}: {}, the others have {}", odd.size() == 1 ? "" : "s",
                                    list_ranks(odd), odd.size() == 1 ? "s" : "", key, value, common->first));
    }
  }
  return found;
}

struct Speed {
  std::string axis;
  int size = 1;
  bool spans_nodes = false;
  double all_reduce = 0, send = 0;  // GB/s of the slowest group: bytes of the tensor over the time; of a message
};

// Medians over repeats; every rank of the axis takes part.
template <typename Work>
double seconds_of(Backend& backend, Tensor probe, Work&& work) {
  std::vector<double> times;
  for (int i = 0; i <= kRepeats; ++i) {
    const auto begin = std::chrono::steady_clock::now();
    work();
    float ignored;
    backend.download(probe.rows_from(0, 1), &ignored);  // waits
    if (i > 0) times.push_back(std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count());
  }
  std::ranges::sort(times);
  return times[times.size() / 2];
}

struct Seconds {  // what a rank measured
  double reduce = 0, send = 0;
  bool spans_nodes = false;  // its group does
};

Speed speed_of(Communicator& axis, Communicator& world, Backend& backend, const std::vector<ordered_json>& cards) {
  Arena arena("probe", backend.memory(), 3 * kProbeBytes);
  Tensor x = arena.tensor(kProbeBytes / 4, 1, DType::f32), out = arena.tensor(kProbeBytes / 4, 1, DType::f32),
         in = arena.tensor(kProbeBytes / 4, 1, DType::f32);
  const double reduce = seconds_of(backend, x, [&] { axis.all_reduce(x); });
  const int next = (axis.rank() + 1) % axis.size(), previous = (axis.rank() + axis.size() - 1) % axis.size();
  const double send = seconds_of(backend, in, [&] {
    const PeerMessage both[] = {{PeerMessage::Way::send, out, next, 1}, {PeerMessage::Way::receive, in, previous, 1}};
    axis.exchange(both)->wait();
  });
  const std::vector<std::string> members =
      axis.gather_strings(cards[static_cast<size_t>(world.rank())]["node"].get<std::string>());
  const bool spans = std::ranges::any_of(members, [&](const std::string& node) { return node != members.front(); });
  Seconds slowest;
  for (const Seconds& of_rank : gather(world, Seconds{reduce, send, spans})) {
    slowest.reduce = std::max(slowest.reduce, of_rank.reduce);
    slowest.send = std::max(slowest.send, of_rank.send);
    slowest.spans_nodes |= of_rank.spans_nodes;
  }
  constexpr double kGigabytes = static_cast<double>(kProbeBytes) * 1e-9;
  return {axis.axis(), axis.size(), slowest.spans_nodes, kGigabytes / slowest.reduce, kGigabytes / slowest.send};
}

// What tensor parallelism across nodes costs a step: four sums of tokens × hidden a layer and micro-batch (two forward,
// two backward).
std::string cost_of_tp(const Recipe& recipe, const MeshShape& shape, double gigabytes_per_second) {
  const ModelConfig model = model_config_of(recipe, ShapeFrom::directory_or_name);
  const double micro_batches = static_cast<double>(recipe.train.global_batch_size) /
                               static_cast<double>(recipe.train.micro_batch_size * shape.dp());
  const double tokens = static_cast<double>(recipe.train.micro_batch_size * recipe.data.max_length) * micro_batches;
  const double gigabytes = 4.0 * static_cast<double>(model.layers) / shape.pp() * tokens *
                           static_cast<double>(model.hidden) *
                           static_cast<double>(size_of(dtype_of(recipe.train.dtype))) * 1e-9;
  return fmt::format(
      "tp spans nodes: a step sums {:.1f} GB a rank over it, {:.1f} s at {:.2f} GB/s; let tp divide the ranks of a "
      "node, and give pp or dp the rest",
      gigabytes, gigabytes / gigabytes_per_second, gigabytes_per_second);
}

std::string nodes_of(const std::vector<ordered_json>& cards, const MeshShape& shape) {
  std::vector<std::pair<std::string, std::vector<int>>> nodes;
  for (size_t r = 0; r < cards.size(); ++r) {
    const std::string node = cards[r]["node"];
    auto at = std::ranges::find(nodes, node, [](const auto& entry) { return entry.first; });
    if (at == nodes.end()) at = nodes.insert(nodes.end(), {node, {}});
    at->second.push_back(static_cast<int>(r));
  }
  std::string text = fmt::format("mesh: tp {} · pp {} · dp {}, rank = (dp·{} + pp)·{} + tp\n", shape.tp(), shape.pp(),
                                 shape.dp(), shape.pp(), shape.tp());
  for (const auto& [node, ranks] : nodes) {
    const MeshPosition first = position_of(ranks.front(), shape), last = position_of(ranks.back(), shape);
    text += fmt::format("  {}: rank{} {}, from tp {} pp {} dp {} to tp {} pp {} dp {}\n", node,
                        ranks.size() == 1 ? "" : "s", list_ranks(ranks), first.tp(), first.pp(), first.dp(), last.tp(),
                        last.pp(), last.dp());
  }
  return text;
}

// rank_hangs where a rank is silent, said by the lowest that answers.
std::vector<ordered_json> all_cards(const Process& process) {
  const int self = process.mpi.rank;
  const std::vector<std::optional<std::string>> answers =
      process.world->roll_call(card_of(process).dump(), kAnswerSeconds);
  std::vector<ordered_json> cards;
  std::vector<int> silent;
  int speaker = -1;
  for (size_t r = 0; r < answers.size(); ++r) {
    if (answers[r] && speaker < 0) speaker = static_cast<int>(r);
    if (!answers[r]) silent.push_back(static_cast<int>(r));
    cards.push_back(answers[r] ? ordered_json::parse(*answers[r]) : ordered_json{});
  }
  if (silent.empty()) return cards;
  if (self != speaker) std::this_thread::sleep_for(std::chrono::seconds(10));  // the speaker ends all
  for (size_t r = 0; r < cards.size(); ++r)
    std::cout << (answers[r] ? fmt::format("rank {} answers: {}\n", r, cards[r]["node"].get<std::string>())
                             : fmt::format("rank {} does NOT ANSWER\n", r));
  std::cout << std::flush;
  fail(Fault::rank_hangs,
       "rank{} {} did not answer within {:g} s: the GPU's driver, the file system with the program, or the network of "
       "{} hangs; see nvidia-smi and dmesg there",
       silent.size() == 1 ? "" : "s", list_ranks(silent), kAnswerSeconds,
       silent.size() == 1 ? "its node" : "their nodes");
}

struct Report {
  const std::vector<ordered_json>& cards;  // of every rank
  const MeshShape& shape;
  const std::vector<Speed>& speeds;
  const std::vector<std::string>& advice;  // empty: ready
};

void print_json(const Report& r) {
  ordered_json axes = ordered_json::array();
  for (const Speed& s : r.speeds)
    axes.push_back({{"axis", s.axis},
                    {"size", s.size},
                    {"spans_nodes", s.spans_nodes},
                    {"all_reduce_gb_per_second", s.all_reduce},
                    {"send_gb_per_second", s.send}});
  std::cout
      << ordered_json{{"ready", r.advice.empty()}, {"ranks", r.cards}, {"axes", axes}, {"advice", r.advice}}.dump()
      << '\n';
}

void print_text(const Report& r) {
  for (size_t rank = 0; rank < r.cards.size(); ++rank) {
    const ordered_json& c = r.cards[rank];
    std::cout << fmt::format("rank {}: node {}, GPU {}{}, NUMA node {}, driver {}, {}build {}, {} threads\n", rank,
                             c["node"].get<std::string>(), c["gpu"].get<std::string>(),
                             c["uuid"].get<std::string>().empty() ? "" : " " + c["uuid"].get<std::string>(),
                             c["numa"].get<int>(), c["driver"].get<std::string>(),
                             c["libraries"].get<std::string>().empty() ? "" : c["libraries"].get<std::string>() + ", ",
                             c["build"].get<std::string>(), c["threads"].get<int>());
  }
  std::cout << nodes_of(r.cards, r.shape);
  for (const Speed& s : r.speeds) {
    std::cout << fmt::format(
        "{}: {} ranks{}: all-reduce {:.2f} GB/s, send {:.2f} GB/s ({} MiB, slowest group, median of {})\n", s.axis,
        s.size, s.spans_nodes ? " across nodes" : " within a node", s.all_reduce, s.send, kProbeBytes >> 20, kRepeats);
  }
  for (const std::string& line : r.advice) std::cout << "NOT READY: " << line << '\n';
  if (r.advice.empty()) std::cout << "ready: " << r.cards.size() << (r.cards.size() == 1 ? " rank\n" : " ranks\n");
}

}  // namespace

Exit diagnose_ranks(const Process& process, const std::string& recipe_file, bool json) {
  Watchdog watchdog(fmt::format("rank {}", process.mpi.rank), std::chrono::duration<double>(kPartSeconds));
  setenv("DROVER_COMM_TIMEOUT_S", "15", 0);  // so that a rank that stops answering is named; the user's stays
  watchdog.beat("asking every rank what it runs");
  const std::vector<ordered_json> cards = all_cards(process);
  Communicator& world = *process.world;

  watchdog.beat("reading the recipe");
  ReadRecipe read;
  MeshShape shape{{Axis::dp, world.size()}};
  together(world, [&] {
    if (recipe_file.empty()) return;
    read = read_recipe(recipe_file, {});
    shape = mesh_shape(read.recipe, world.size());
  });
  check_same(world, "the recipe", recipe_file.empty() ? "none" : resolved_recipe(read));
  const Recipe& recipe = read.recipe;
  watchdog.beat("opening the device and its communicators");
  const Mesh host = make_mesh(shape);
  Device device = open_device(host, recipe, process);
  std::vector<Speed> speeds;
  for (const Axis axis : kAxes) {
    if (shape[axis] == 1) continue;
    watchdog.beat(fmt::format("measuring {}", name_of(axis)));
    speeds.push_back(speed_of(*device.mesh.axes[axis], world, *device.backend, cards));
  }
  std::vector<std::string> advice = differences(cards);
  together(world, [&] {
    for (const Speed& s : speeds) {
      if (s.axis != "tp" || !s.spans_nodes) continue;
      advice.push_back(recipe_file.empty() ? "tp spans nodes" : cost_of_tp(recipe, shape, s.all_reduce));
    }
  });
  if (world.rank() == 0) {
    const Report report{cards, shape, speeds, advice};
    json ? print_json(report) : print_text(report);
  }
  return advice.empty() ? Exit::done : Exit::missing_input;
}

}  // namespace drover
