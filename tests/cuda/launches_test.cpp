// What the device is asked to do by a step and by a decoded token, launch for launch and product for product with their
// shapes and leading dimensions, against lists in launches/. Each low-rank term rides in its linear's product: another
// product more, or a narrower one, is another list. A wanted change: copy the list that the failure names.
#include <filesystem>
#include <map>

#include "kernels/base/file.h"
#include "kernels/base/hash.h"
#include "model/generation/decoder.h"
#include "tests/cuda/emulation/emulated_device.h"
#include "tests/cuda/training.h"

namespace drover {
namespace {

// Every line that occurs with its number, behind a hash of all of them in their order.
std::string summary(const std::vector<std::string>& lines) {
  std::string all, text;
  std::map<std::string, int> counts;
  for (const std::string& line : lines) {
    all += line + '\n';
    ++counts[line];
  }
  text = fmt::format("{} lines, SHA-256 {}\n", lines.size(), sha256_hex(all));
  for (const auto& [line, n] : counts) text += fmt::format("{:>3} {}\n", n, line);
  return text;
}

void expect_list(const std::string& name, const std::vector<std::string>& lines) {
  const fs::path expected = fs::path(DROVER_SOURCE_DIR) / "tests" / "cuda" / "launches" / (name + ".txt");
  const fs::path found = fs::path(DROVER_BINARY_DIR) / ("launches-" + name + ".txt");
  const std::string text = summary(lines);
  if (fs::exists(expected) && read_text(expected) == text) return;
  write_text(found, text);
  ADD_FAILURE() << "the device does something else than " << expected << " says: see " << found;
}

struct Recorded {
  std::vector<std::string> lines;
  Recorded() { cuda::emulation::done_by_device = &lines; }
  ~Recorded() { cuda::emulation::done_by_device = nullptr; }
};

std::vector<std::string> step(const Case& run) {
  const auto backend = cuda_under_test();
  const Device device{backend, make_self_mesh()};
  EngineSettings s = settings_of(run);
  s.traits = backend->traits();
  DrawnWeights weights(11, 0.15f, 0.5f);
  const ArenaBytes bytes = plan_rank(s, {}, {}).bytes;
  Replica replica(s, device, weights, bytes);
  Engine engine(s, replica, bytes.saved);
  replica.adapter->initialise(1);
  engine.train_step(batch_of(0), 1);
  Recorded recorded;
  engine.train_step(batch_of(0), 2);
  return recorded.lines;
}

TEST(Launches, OfATrainingStep) {
  expect_list("bf16", step({.dtype = DType::bf16, .r = 16, .head_dim = 16, .head = false}));
  expect_list("fp32", step({.r = 3, .head = false}));
  expect_list("dropout",
              step({.dtype = DType::bf16, .dropout = 0.1f, .recompute = true, .r = 16, .head_dim = 16, .head = false}));
}

TEST(Launches, OfADecodedToken) {
  const auto backend = cuda_under_test();
  const Device device{backend, make_self_mesh()};
  EngineSettings s = settings_of({.dtype = DType::bf16, .r = 16, .head_dim = 16, .head = false});
  s.traits = backend->traits();
  s.train = false;
  DrawnWeights weights(11, 0.15f, 0.5f);
  Replica replica(s, device, weights, plan_rank(s, {}, {}).bytes);
  replica.adapter->initialise(1);
  Arena cache("cache", backend->memory(), 1 << 20);
  KvPool pool(replica.stage, cache, 2);
  Decoder decoder(replica.stage, device.mesh, *backend, pool, replica.arenas.scratch);
  const Sampling greedy;
  CachedSequence one, other;
  ASSERT_TRUE(pool.reserve(one, 4) && pool.reserve(other, 4));
  const auto append = [&](const std::vector<int32_t>& ids, const std::vector<int32_t>& others) {
    decoder.append(std::vector<Decoder::Input>{{&one, ids, &greedy}, {&other, others, &greedy}});
  };
  append({5, 7, 9}, {4});
  Recorded recorded;
  append({6}, {8});
  expect_list("decoded", recorded.lines);
}

}  // namespace
}  // namespace drover
