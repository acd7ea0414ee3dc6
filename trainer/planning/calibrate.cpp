#include "trainer/planning/calibrate.h"

#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <random>
#include <span>

#include "kernels/base/error.h"
#include "kernels/base/hash.h"
#include "kernels/comm/gather.h"
#include "kernels/timed/op_timer.h"
#include "model/generation/decoder.h"
#include "trainer/engine/plan.h"
#include "trainer/planning/made_model.h"

namespace drover {

namespace {

using Clock = std::chrono::steady_clock;
double since(Clock::time_point begin) { return std::chrono::duration<double>(Clock::now() - begin).count(); }

double median(std::vector<double> values) {
  std::ranges::nth_element(values, values.begin() + static_cast<std::ptrdiff_t>(values.size() / 2));
  return values[values.size() / 2];
}

// Of calls as a step has them: the mean, but one that was interrupted counts as twice the median at most.
double typical(std::vector<double> values) {
  const double most = 2 * median(values);
  double sum = 0;
  for (const double value : values) sum += std::min(value, most);
  return sum / static_cast<double>(values.size());
}

// The times of every kind of call, until they become samples.
class Measured {
 public:
  void add(const OpCall& c, double seconds) {
    Times& times = kinds_[kind_of(c)];
    if (times.seconds.empty()) {
      times.sample = {.op = std::string(c.op),
                      .dtype = c.dtype,
                      .format = c.format,
                      .products = c.products,
                      .generates = c.generates,
                      .a = c.a,
                      .b = c.b,
                      .flops = c.flops,
                      .bytes = c.bytes};
    }
    times.seconds.push_back(seconds);
  }
  std::vector<OpSample> samples() {
    std::vector<OpSample> all;
    for (auto& [what, times] : kinds_) {
      times.sample.seconds = std::max(typical(std::move(times.seconds)), 1e-9);
      all.push_back(std::move(times.sample));
    }
    return all;
  }

 private:
  struct Times {
    OpSample sample;
    std::vector<double> seconds;
  };
  std::map<std::string, Times> kinds_;
};

MeshShape shape_of(const MadeStep& step) {
  MeshShape shape;
  shape[Axis::tp] = step.tp;
  return shape;
}

// A model on the device that trains or generates, alone whatever ranks there are.
struct Bench {
  Bench(const MadeStep& step, const Device& device)
      : settings(settings_of(step, device.backend->traits())),
        alone{device.backend, make_count_mesh(shape_of(step), {}), device.threads},
        plan(plan_rank(settings, shape_of(step), {})),
        replica(settings, alone, weights, plan.bytes) {
    replica.adapter->initialise(1);
  }
  MadeWeights weights;
  EngineSettings settings;
  Device alone;
  RankPlan plan;
  Replica replica;
};

// A run's tensors have left the CPU's caches when they are needed again, those of a small model would not: before each
// part of a step as much other memory is read as the caches hold.
class ColdCaches : public WorkObserver {
 public:
  explicit ColdCaches(bool needed) {
    constexpr int64_t kLeast = int64_t{32} << 20, kMost = int64_t{320} << 20;
    const int64_t cache = sysconf(_SC_LEVEL3_CACHE_SIZE) * 5 / 4;
    if (needed) other_.assign(static_cast<size_t>(std::clamp(cache, kLeast, kMost)) / sizeof(int64_t), 1);
  }
  void begin(const Work&) override {
    const auto begin = Clock::now();
    for (size_t i = 0; i < other_.size(); i += 8) sum_ = sum_ + other_[i];
    seconds_ += since(begin);
  }
  void end(const Work&) override {}
  double seconds() const { return seconds_; }

 private:
  std::vector<int64_t> other_;
  volatile int64_t sum_ = 0;
  double seconds_ = 0;
};

// Steps after a first one, which touches memory for the first time. → seconds of each that lie in no op, for each op
double measure_steps(const MadeStep& step, int steps, const Device& device, Measured& measured) {
  Bench bench(step, device);
  Engine engine(bench.settings, bench.replica, bench.plan.bytes.saved);
  const Batch batch = batch_of(step);
  engine.train_step(batch, 1);
  device.mesh.world->barrier();
  OpTimer timer(*device.backend);
  int64_t calls = 0;
  double in_ops = 0;
  timer.each([&](const OpCall& call, double seconds) {
    measured.add(call, seconds);
    in_ops += seconds;
    ++calls;
  });
  ColdCaches cold(!device.backend->traits().own_memory);
  engine.observe(&cold);
  const auto begin = Clock::now();
  for (int i = 0; i < steps; ++i) engine.train_step(batch, 2 + i);
  const double whole = since(begin) - cold.seconds();
  engine.observe(nullptr);
  timer.times();
  return std::max(0.0, whole - in_ops) / static_cast<double>(calls);
}

void measure_passes(const MadePasses& passes, const Device& device, Measured& measured) {
  const int64_t longest = passes.contexts.back() + 16;
  const MadeStep shape{.model = passes.model, .tokens = passes.pass, .document = longest, .weights = passes.weights};
  EngineSettings settings = settings_of(shape, device.backend->traits());
  settings.train = false;
  const int64_t blocks = passes.sequences * KvPool::blocks_for(longest);
  MadeWeights weights;
  ArenaBytes bytes;
  const Sampling greedy;
  {
    NoWeights nothing;
    Replica counted(settings, count_device(settings.traits, {}, {}), nothing, kPlenty);
    KvPool pool(counted.stage, counted.arenas.cache, blocks);
    Decoder decoder(counted.stage, counted.device.mesh, counted.backend(), pool, counted.arenas.scratch);
    decoder.rehearse(passes.pass, passes.sequences, greedy, false);
    bytes = counted.peak();
  }
  Replica replica(settings, {device.backend, make_self_mesh(), device.threads}, weights, bytes);
  KvPool pool(replica.stage, replica.arenas.cache, blocks);
  Decoder decoder(replica.stage, replica.device.mesh, replica.backend(), pool, replica.arenas.scratch);
  std::vector<CachedSequence> sequences(static_cast<size_t>(passes.sequences));
  for (CachedSequence& s : sequences) require(pool.reserve(s, longest), "the pool has room for all");
  const auto append = [&](int64_t count, int64_t tokens) {
    const std::vector<int32_t> ids(static_cast<size_t>(tokens), 5);
    std::vector<Decoder::Input> inputs;
    for (int64_t i = 0; i < count; ++i)
      inputs.push_back(
          {.sequence = &sequences[static_cast<size_t>(i)], .ids = ids, .sampling = &greedy, .slot = kBaseModel});
    decoder.append(inputs);
  };
  append(1, 1);  // touches the memory
  sequences.front().tokens = 0;
  device.mesh.world->barrier();
  OpTimer timer(*device.backend);
  timer.each([&](const OpCall& call, double seconds) { measured.add(call, seconds); });
  for (const int64_t context : passes.contexts) {
    for (CachedSequence& s : sequences) {
      if (&s != &sequences.front()) {
        s.tokens = context;  // what they hold is whatever lies there: finite
        continue;
      }
      while (s.tokens < context) append(1, std::min(passes.pass, context - s.tokens));
    }
    for (int64_t count = 1; count <= passes.sequences; count *= 2) {
      for (int again = 0; again < 2; ++again) append(count, 1);
    }
    for (CachedSequence& s : sequences) s.tokens = context;
  }
  timer.times();
}

std::string words_of(const MadeStep& s) {
  const char* numbers = s.weights == WeightsAs::fp8   ? "fp8"
                        : s.weights == WeightsAs::nf4 ? "nf4"
                        : s.dtype == DType::f32       ? "fp32"
                                                      : "bf16";
  return fmt::format("steps of {} tokens in documents of {}, hidden size {}, {}", s.tokens, s.document, s.model.hidden,
                     numbers);
}

// Sums, gathers and messages of a few sizes; the times of the slowest rank.
std::vector<MessageSample> measure_messages(const Device& device) {
  Communicator& world = *device.mesh.world;
  Communicator* group = nullptr;
  for (const Axis axis : kAxes) {
    if (device.mesh.shape[axis] > 1) group = &*device.mesh.axes[axis];
  }
  std::vector<MessageSample> samples;
  if (group == nullptr) return samples;
  Backend& backend = *device.backend;
  const int n = group->size(), next = (group->rank() + 1) % n, last = (group->rank() + n - 1) % n;
  for (const int64_t bytes : {int64_t{64}, int64_t{4096}, int64_t{65536}, int64_t{1} << 20, int64_t{16} << 20}) {
    const int64_t values = bytes / 4, parts = std::max<int64_t>(values / n, 1);
    Arena arena("messages", backend.memory(), 2 * bytes + 2 * parts * n * 4 + 16 * Arena::kAlign);
    const Tensor x = arena.tensor(values, 1, DType::f32), y = arena.tensor(values, 1, DType::f32);
    const Tensor whole = arena.tensor(parts * n, 1, DType::f32);
    for (const Tensor t : {x, y, whole}) backend.zero(t);
    const auto timed = [&](const char* kind, int64_t size, const auto& call) {
      std::vector<double> seconds;
      const int times = bytes > (4 << 20) ? 5 : 20;
      for (int i = 0; i <= times; ++i) {
        world.barrier();
        const std::unique_ptr<Moment> begin = backend.moment();
        call();
        const std::unique_ptr<Moment> end = backend.moment();
        const double took = begin->seconds_until(*end);
        if (i > 0) seconds.push_back(took);  // the first one connects
      }
      const double mine = median(std::move(seconds));
      const double slowest = static_cast<double>(largest(world, static_cast<int64_t>(mine * 1e9))) * 1e-9;
      samples.push_back({kind, std::string_view(kind) == "exchange" ? 2 : n, size, slowest});
    };
    timed("all_reduce", x.bytes(), [&] { group->all_reduce(x); });
    timed("all_gather", whole.bytes(),
          [&] { group->all_gather(whole.rows_from(group->rank() * parts, parts), whole); });
    timed("exchange", x.bytes(), [&] {
      const PeerMessage both[] = {{PeerMessage::Way::send, x, next, 1}, {PeerMessage::Way::receive, y, last, 1}};
      group->exchange(both)->wait();
    });
  }
  return samples;
}

struct DiskRates {
  double read = 0, write = 0;  // bytes/s; 0 where it cannot be done
};

// Gives `use` what it reads, block by block. The bytes that there are; -1 where they cannot be read.
template <typename Use>
int64_t read_all(int file, std::span<char> block, const Use& use) {
  int64_t bytes = 0;
  while (true) {
    const ssize_t got = ::pread(file, block.data(), block.size(), bytes);
    if (got == 0) return bytes;
    if (got < 0) return -1;
    use(block.first(static_cast<size_t>(got)));
    bytes += got;
  }
}

// Of a file that is written, synced and hashed, as a checkpoint is; then dropped from memory and read. It loses its
// name first, so that nothing stays of it however this process ends.
DiskRates measure_disk() {
  std::error_code ignored;
  fs::create_directories(calibration_directory(), ignored);
  const std::string path = (calibration_directory() / fmt::format("read-test-{}", ::getpid())).string();
  const int file = ::open(path.c_str(), O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
  if (file < 0) return {};
  ::unlink(path.c_str());
  std::vector<char> block(size_t{8} << 20);
  std::minstd_rand random(1);
  for (char& c : block) c = static_cast<char>(random());
  constexpr int kBlocks = 24;
  constexpr size_t kHashed = size_t{1} << 20;  // at once
  const auto all = static_cast<int64_t>(kBlocks * block.size());
  auto begin = Clock::now();
  bool written = true;
  for (int i = 0; i < kBlocks && written; ++i)
    written = ::write(file, block.data(), block.size()) == static_cast<ssize_t>(block.size());
  written = written && ::fsync(file) == 0;
  DiskRates rates;
  Sha256 hash;
  const auto hashed = [&](std::span<const char> part) { hash.update(part.data(), part.size()); };
  if (written && read_all(file, std::span(block).first(kHashed), hashed) == all)
    rates.write = static_cast<double>(all) / since(begin);
  if (written && ::posix_fadvise(file, 0, 0, POSIX_FADV_DONTNEED) == 0) {
    begin = Clock::now();
    if (read_all(file, block, [](std::span<const char>) {}) == all)
      rates.read = static_cast<double>(all) / since(begin);
  }
  ::close(file);
  return rates;
}

}  // namespace

Calibration calibrate(const Device& device, const MeasuredMachine& machine, const Measurements& measurements,
                      const std::function<void(const std::string&)>& said) {
  const auto begin = Clock::now();
  Calibration c{.machine = machine};
  Measured measured;
  std::vector<double> outside;
  for (const auto& [step, times] : measurements.steps) {
    said(words_of(step));
    outside.push_back(measure_steps(step, times, device, measured));
  }
  for (const MadePasses& passes : measurements.passes) {
    said(fmt::format("passes of generation, hidden size {}", passes.model.hidden));
    measure_passes(passes, device, measured);
  }
  said("messages, and the disk");
  c.ops = measured.samples();
  if (!outside.empty()) c.outside_per_call = median(std::move(outside));
  c.messages = measure_messages(device);
  if (device.mesh.world->rank() == 0) {
    const auto [read, write] = measure_disk();
    c.read = read, c.write = write;
  }
  device.mesh.world->barrier();
  c.seconds = since(begin);
  return c;
}

}  // namespace drover
