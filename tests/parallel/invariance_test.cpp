// Every mesh, packing, accumulation and recomputation against the plain run of the same made-up model, by real mpirun
// with synchronous sends (bounds of the table "what equals what"); and for each invariant a run that breaks it on
// purpose and must be noticed.
#include <gtest/gtest.h>

#include <cmath>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <map>
#include <sstream>

namespace {

struct Result {
  std::vector<double> losses, norms;
  std::map<std::string, std::vector<float>> gradients, parameters;
};

struct MeshSize {
  int tp = 1, pp = 1, dp = 1;
  int size() const { return tp * pp * dp; }
};

Result read_result(const std::string& path) {
  Result result;
  std::ifstream in(path, std::ios::binary);
  std::string kind;
  while (in >> kind) {
    if (kind == "step") {
      double number, loss, norm;
      in >> number >> loss >> norm;
      result.losses.push_back(loss);
      result.norms.push_back(norm);
      continue;
    }
    std::string name;
    size_t n = 0;
    in >> name >> n;
    in.get();
    std::vector<float> values(n);
    in.read(reinterpret_cast<char*>(values.data()), static_cast<std::streamsize>(n * sizeof(float)));
    (kind == "gradient" ? result.gradients : result.parameters)[name] = values;
  }
  return result;
}

// The same tests on another device or machine name its programs in the environment.
std::string given_or(const char* variable, const char* built) {
  const char* given = std::getenv(variable);
  return given ? given : built;
}

// Runs mesh_run and returns what it wrote. Results are kept per arguments, for the plain runs that many tests compare
// with.
const Result& run(const MeshSize& mesh, const std::string& arguments) {
  static std::map<std::string, Result> cache;
  const std::string key =
      std::to_string(mesh.tp) + "-" + std::to_string(mesh.pp) + "-" + std::to_string(mesh.dp) + " " + arguments;
  const auto found = cache.find(key);
  if (found != cache.end()) return found->second;
  const std::string out = (std::filesystem::temp_directory_path() /
                           ("drover-mesh-" + std::to_string(getpid()) + "-" + std::to_string(cache.size())))
                              .string();
  std::ostringstream command;
  command << "DROVER_COMM_SYNCHRONOUS=1 OMP_NUM_THREADS=1 ";
  command << given_or("DROVER_TEST_MPIRUN", MPIRUN) << " -n " << mesh.size() << ' ';
  command << given_or("DROVER_MESH_RUN", MESH_RUN) << " tp=" << mesh.tp << " pp=" << mesh.pp << " dp=" << mesh.dp << ' '
          << arguments << " out=" << out << " >&2";
  EXPECT_EQ(std::system(command.str().c_str()), 0) << command.str();
  Result result = read_result(out);
  std::filesystem::remove(out);
  return cache.emplace(key, std::move(result)).first->second;
}

double norm(const std::vector<float>& x) {
  double s = 0;
  for (float v : x) s += static_cast<double>(v) * v;
  return std::sqrt(s);
}

double distance(const std::vector<float>& a, const std::vector<float>& b) {
  if (a.size() != b.size()) return INFINITY;
  double s = 0;
  for (size_t i = 0; i < a.size(); ++i) s += (static_cast<double>(a[i]) - b[i]) * (static_cast<double>(a[i]) - b[i]);
  return std::sqrt(s);
}

constexpr double kClip = 0.05;  // mesh_run's max_grad_norm

struct Difference {
  double loss = 0, gradient = 0, grad_norm = 0;  // largest relative difference over steps, over tensors, over steps
};

Difference difference(const Result& plain, const Result& other) {
  Difference d;
  EXPECT_FALSE(plain.losses.empty());
  EXPECT_EQ(plain.losses.size(), other.losses.size());
  EXPECT_FALSE(plain.gradients.empty());
  EXPECT_EQ(plain.gradients.size(), other.gradients.size());
  for (size_t i = 0; i < std::min(plain.losses.size(), other.losses.size()); ++i) {
    EXPECT_GT(plain.losses[i], 0);
    d.loss = std::max(d.loss, std::abs(plain.losses[i] - other.losses[i]) / plain.losses[i]);
    EXPECT_GT(plain.norms[i], kClip) << "clipping is active";
    d.grad_norm = std::max(d.grad_norm, std::abs(plain.norms[i] - other.norms[i]) / plain.norms[i]);
  }
  for (const auto& [name, values] : plain.gradients) {
    EXPECT_GT(norm(values), 0) << name;
    const auto found = other.gradients.find(name);
    d.gradient = std::max(d.gradient,
                          found == other.gradients.end() ? INFINITY : distance(values, found->second) / norm(values));
  }
  return d;
}

void expect_equal(const Result& plain, const Result& other, double bound = 1e-5) {
  const Difference d = difference(plain, other);
  EXPECT_LE(d.gradient, bound);
  EXPECT_LE(d.loss, bound);
  EXPECT_LE(d.grad_norm, bound);
}

void expect_same_bits(const Result& a, const Result& b) {
  EXPECT_FALSE(a.parameters.empty());
  EXPECT_EQ(a.losses, b.losses);
  EXPECT_EQ(a.norms, b.norms);
  EXPECT_EQ(a.gradients, b.gradients);
  EXPECT_EQ(a.parameters, b.parameters);
}

class EveryMesh : public testing::TestWithParam<MeshSize> {};

TEST_P(EveryMesh, EqualsOneRankInFp32) { expect_equal(run({}, "dtype=fp32"), run(GetParam(), "dtype=fp32")); }
TEST_P(EveryMesh, EqualsOneRankWithDropout) { expect_equal(run({}, "dropout=0.1"), run(GetParam(), "dropout=0.1")); }
void expect_equal_parameters(const Result& plain, const Result& other) {
  EXPECT_FALSE(plain.parameters.empty());
  for (const auto& [name, values] : plain.parameters) {
    EXPECT_LE(distance(values, other.parameters.at(name)), 1e-5 * norm(values)) << name;
  }
}
TEST_P(EveryMesh, HasTheParametersOfOneRankAfterOneStep) {
  expect_equal_parameters(run({}, "dtype=fp32 steps=1"), run(GetParam(), "dtype=fp32 steps=1"));
}
TEST_P(EveryMesh, MovesBAtItsOwnRate) {
  const std::string arguments = "dtype=fp32 steps=1 rate_of_b=8";
  const Result &plain = run({}, arguments), &one_rate = run({}, "dtype=fp32 steps=1");
  expect_equal_parameters(plain, run(GetParam(), arguments));
  for (const auto& [name, values] : plain.parameters) {
    const double moved = distance(values, one_rate.parameters.at(name));
    if (name.ends_with("lora_A")) EXPECT_EQ(moved, 0) << name;
    if (name.ends_with("lora_B")) EXPECT_GT(moved, 1e-3 * norm(values)) << name;
  }
}
TEST_P(EveryMesh, EqualsOneRankWithAdaptersInSomeLayers) {
  const std::string arguments =
      "targets=upper documents=3 tied=1 dropout=0.1";  // micro-batches fewer than stages and not divisible by dp
  expect_equal(run({}, arguments), run(GetParam(), arguments));
}
// 323 tokens are not dealt evenly.
TEST_P(EveryMesh, EqualsOneRankWithAnAdapterOfTheHead) {
  for (const char* arguments : {"targets=head_and_o dropout=0.1 documents=5", "targets=head tied=1"}) {
    SCOPED_TRACE(arguments);
    expect_equal(run({}, arguments), run(GetParam(), arguments));
  }
}
// In bf16 the meshes round at other places; their distance to the fp32 run may not exceed 1.2 times that of one rank in
// bf16.
TEST_P(EveryMesh, IsAsCloseToFp32InBf16AsOneRank) {
  const Result &exact = run({}, "dtype=fp32 steps=1"), &one = run({}, "dtype=bf16 steps=1"),
               &other = run(GetParam(), "dtype=bf16 steps=1");
  double one_error = 0, other_error = 0, size = 0;
  for (const auto& [name, values] : exact.gradients) {
    one_error += std::pow(distance(values, one.gradients.at(name)), 2);
    other_error += std::pow(distance(values, other.gradients.at(name)), 2);
    size += std::pow(norm(values), 2);
  }
  EXPECT_GT(one_error, 0);
  EXPECT_LE(std::sqrt(other_error), 1.2 * std::sqrt(one_error)) << "of " << std::sqrt(size);
}

INSTANTIATE_TEST_SUITE_P(Meshes, EveryMesh,
                         testing::Values(MeshSize{2, 1, 1}, MeshSize{1, 2, 1}, MeshSize{1, 1, 2}, MeshSize{2, 2, 1},
                                         MeshSize{2, 1, 2}, MeshSize{1, 2, 2}, MeshSize{4, 1, 1}, MeshSize{1, 3, 1},
                                         MeshSize{2, 2, 2}),
                         [](const auto& info) {
                           return "tp" + std::to_string(info.param.tp) + "pp" + std::to_string(info.param.pp) + "dp" +
                                  std::to_string(info.param.dp);
                         });

TEST(Parallel, ManyNarrowLayers) {
  const std::string arguments =
      "layers=126 hidden=32 heads=4 kv_heads=2 head_dim=8 ffn=48 vocab=97 documents=5 longest=9 steps=1 std=0.05";
  expect_equal(run({}, arguments), run({2, 4, 1}, arguments));
}

TEST(Parallel,
     MessagesOverOneMegabyte) {  // two micro-batches of 366 and 392 tokens × 1024 × 4 bytes between the stages
  const std::string arguments =
      "hidden=1024 heads=8 kv_heads=4 head_dim=16 ffn=64 layers=2 documents=32 longest=47 micro_batch_size=16 steps=1 "
      "message_bytes=1500000";
  expect_equal(run({}, arguments), run({1, 2, 1}, arguments));
}

// A micro-batch in two parts that take turns at the sums over tp. That it was divided shows in the bits: gradients are
// added in another order.
TEST(Parallel, TwoPartsOfAMicroBatchEqualTheWhole) {
  for (const char* with : {"dtype=fp32", "dropout=0.1", "recompute=1", "targets=upper tied=1"}) {
    const std::string arguments = std::string(with) + " micro_batch_size=4 steps=3";
    for (const MeshSize mesh : {MeshSize{2, 1, 1}, MeshSize{2, 2, 1}}) {
      expect_equal(run({}, arguments), run(mesh, arguments + " parts=2"));
      EXPECT_NE(run(mesh, arguments).gradients, run(mesh, arguments + " parts=2").gradients);
    }
  }
}

TEST(Parallel, FewerMicroBatchesThanStagesOrReplicas) {
  expect_equal(run({}, "documents=2"), run({1, 3, 1}, "documents=2"));
  expect_equal(run({}, "documents=3"), run({1, 1, 4}, "documents=3"));  // a rank without rows still takes part
}

TEST(Deterministic, SameMicroBatchesSplitOtherwiseGiveTheSameBits) {
  const std::string arguments = "deterministic=1 documents=7 steps=3";
  const Result& plain = run({}, arguments);
  for (MeshSize mesh : {MeshSize{1, 1, 2}, MeshSize{1, 1, 3}, MeshSize{1, 2, 1}, MeshSize{1, 2, 2}, MeshSize{1, 3, 1}})
    expect_same_bits(plain, run(mesh, arguments));
  const std::string rounded = "deterministic=1 documents=7 steps=2 dtype=bf16 dropout=0.1";
  for (MeshSize mesh : {MeshSize{1, 1, 2}, MeshSize{1, 2, 2}, MeshSize{1, 3, 1}})
    expect_same_bits(run({}, rounded), run(mesh, rounded));
}

TEST(Deterministic, WithoutTheSettingBitsDiffer) {
  EXPECT_NE(run({}, "documents=7 steps=3").parameters, run({1, 1, 2}, "documents=7 steps=3").parameters);
}

TEST(Deterministic, TwoRunsGiveTheSameBits) {
  expect_same_bits(run({2, 2, 1}, "steps=2"), run({2, 2, 1}, "steps=2 again=1"));
}

TEST(Plain, RecomputeGivesTheSameBits) {
  expect_same_bits(run({}, "steps=2 dropout=0.1"), run({}, "steps=2 dropout=0.1 recompute=1"));
  expect_same_bits(run({}, "steps=2 dtype=bf16"), run({}, "steps=2 dtype=bf16 recompute=1"));
}

TEST(Plain, MicroBatchSizeAndPackingDoNotMatter) {
  for (const char* size : {"2", "3", "8"})
    expect_equal(run({}, "dropout=0.1"), run({}, std::string("dropout=0.1 micro_batch_size=") + size));
}

// A ring of two for the layers of a stage; several micro-batches pass a layer together where inputs alone are kept.
TEST(Streamed, EveryMeshHasTheBitsOfResidentWeights) {
  for (const char* with : {"dtype=fp32 dropout=0.1", "dtype=bf16 recompute=1"}) {
    const std::string arguments = std::string(with) + " documents=6 steps=2 layers=6";
    for (const MeshSize mesh :
         {MeshSize{}, MeshSize{2, 1, 1}, MeshSize{1, 2, 1}, MeshSize{1, 1, 2}, MeshSize{2, 2, 1}}) {
      SCOPED_TRACE("tp" + std::to_string(mesh.tp) + "pp" + std::to_string(mesh.pp) + "dp" + std::to_string(mesh.dp));
      expect_same_bits(run(mesh, arguments), run(mesh, arguments + " streamed=1"));
    }
  }
}

TEST(Streamed, TwoPartsThatTakeTurnsHaveTheBitsOfResidentWeights) {
  for (const char* with : {"", " recompute=1", " targets=upper recompute=1"}) {
    const std::string arguments = std::string("documents=12 micro_batch_size=3 steps=2 layers=6 parts=2") + with;
    expect_same_bits(run({2, 1, 1}, arguments), run({2, 1, 1}, arguments + " streamed=1"));
  }
}

// Frozen weights that become codes as they are loaded, cut inside blocks of 128.
const std::string kCutInTwo = "hidden=64 heads=4 kv_heads=2 head_dim=32 ffn=384 steps=2 std=0.1 varied=1 ";
const std::string kCutInThree = "hidden=128 heads=6 kv_heads=3 head_dim=32 ffn=192 layers=2 steps=2 std=0.1 varied=1 ";

class Quantised : public testing::TestWithParam<std::string> {
 protected:
  std::string with(const std::string& model) const { return model + "weights=" + GetParam(); }
};

TEST_P(Quantised, EveryMeshEqualsOneRank) {
  const Result& plain = run({}, with(kCutInTwo));
  for (const MeshSize mesh : {MeshSize{2, 1, 1}, MeshSize{1, 2, 1}, MeshSize{1, 1, 2}, MeshSize{2, 2, 1}}) {
    SCOPED_TRACE("tp" + std::to_string(mesh.tp) + "pp" + std::to_string(mesh.pp) + "dp" + std::to_string(mesh.dp));
    expect_equal(plain, run(mesh, with(kCutInTwo)));
  }
  expect_equal(run({}, with(kCutInThree)), run({3, 1, 1}, with(kCutInThree)));
  EXPECT_GT(difference(run({}, kCutInTwo), plain).loss, 1e-4) << "that weights are quantised shows";
}

TEST_P(Quantised, DeterministicMeshesGiveTheSameBits) {
  const std::string arguments = with(kCutInTwo) + " dtype=bf16 deterministic=1 dropout=0.1";
  expect_same_bits(run({}, arguments), run({1, 2, 1}, arguments));
}

TEST_P(Quantised, RecomputeGivesTheSameBits) {
  const std::string arguments = with(kCutInTwo) + " dropout=0.1";
  expect_same_bits(run({}, arguments), run({}, arguments + " recompute=1"));
}

TEST_P(Quantised, TwoPartsOfAMicroBatchEqualTheWhole) {
  expect_equal(run({}, with(kCutInTwo)), run({2, 1, 1}, with(kCutInTwo) + " micro_batch_size=4 parts=2"));
}

TEST_P(Quantised, MicroBatchSizeAndPackingDoNotMatter) {
  for (const char* size : {"3", "8"})
    expect_equal(run({}, with(kCutInTwo)), run({}, with(kCutInTwo) + " micro_batch_size=" + size));
}

INSTANTIATE_TEST_SUITE_P(Formats, Quantised, testing::Values("fp8", "nf4"),
                         [](const auto& info) { return info.param; });

// Of one rank such blocks are those of the tensors.
TEST(QuantisedBroken, SlicesInBlocksOfTheirOwnAreNoticed) {
  const Result& plain = run({}, kCutInTwo + "weights=nf4");
  EXPECT_LE(difference(plain, run({}, kCutInTwo + "break=own_blocks")).gradient, 1e-5);
  EXPECT_GT(difference(plain, run({2, 1, 1}, kCutInTwo + "break=own_blocks")).gradient, 1e-3);
}

struct Breakage {
  const char* name;
  MeshSize mesh;
  std::string arguments = {};
};
class Broken : public testing::TestWithParam<Breakage> {};

TEST_P(Broken, IsNoticed) {
  const Difference d = difference(
      run({}, "steps=2 dropout=0.1"),
      run(GetParam().mesh, std::string("steps=2 dropout=0.1 ") + GetParam().arguments + " break=" + GetParam().name));
  EXPECT_GT(std::max({d.gradient, d.loss, d.grad_norm}), 1e-3);
}

INSTANTIATE_TEST_SUITE_P(OnPurpose, Broken,
                         testing::Values(Breakage{"tp_reduction", {2, 1, 1}}, Breakage{"whole_factor_sum", {2, 1, 1}},
                                         Breakage{"norm_twice", {2, 1, 1}}, Breakage{"swapped_blocks", {2, 1, 1}},
                                         Breakage{"dp_sum", {1, 1, 2}}, Breakage{"mean_of_means", {1, 1, 2}},
                                         Breakage{"lost_micro_batch", {1, 1, 2}},
                                         Breakage{"norm_of_one_stage", {1, 2, 1}},
                                         Breakage{"empty_backward", {1, 2, 1}},
                                         Breakage{"leaky_packing", {}, "micro_batch_size=2"},
                                         Breakage{"running_positions", {}, "micro_batch_size=2"},
                                         Breakage{"dropout_by_row", {}, "micro_batch_size=2"}),
                         [](const auto& info) { return std::string(info.param.name); });

}  // namespace
