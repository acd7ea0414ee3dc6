// Llama 3.1 405B by its shape: 191 files with holes, 812 GB by their sizes and nothing on the disk. A rank of tp 8
// reads its own slices of them, counted byte by byte, through the code that trains; the Count backend keeps nothing of
// what it is given.
#include <fcntl.h>
#include <gmock/gmock.h>
#include <unistd.h>

#include <chrono>
#include <fstream>
#include <nlohmann/json.hpp>
#include <set>

#include "kernels/count/count.h"
#include "kernels/cpu/cpu_backend.h"
#include "model/base_weights.h"
#include "tests/base/scratch_directory.h"
#include "tests/files/made_up_files.h"
#include "trainer/engine/plan.h"
#include "trainer/run/process_memory.h"
#include "trainer/setup/adapter_setup.h"
#include "trainer/setup/engine_settings.h"
#include "trainer/setup/model_check.h"

namespace drover {
namespace {

// Stated here and not asked of known_model or weight_table: what the published model is.
constexpr int64_t kHidden = 16384, kFfn = 53248, kKeys = 8 * 128, kVocab = 128256, kLayers = 126, kTp = 8,
                  kBf16Bytes = 2;
constexpr int64_t kFiles = 191;
constexpr int64_t kFileBytes = 5'000'000'000;  // as transformers deals tensors to files

struct Linear {
  const char* name;
  int64_t rows, cols;
  bool rows_dealt;
};
constexpr Linear kLinears[] = {
    {"self_attn.q_proj", kHidden, kHidden, true}, {"self_attn.k_proj", kKeys, kHidden, true},
    {"self_attn.v_proj", kKeys, kHidden, true},   {"self_attn.o_proj", kHidden, kHidden, false},
    {"mlp.gate_proj", kFfn, kHidden, true},       {"mlp.up_proj", kFfn, kHidden, true},
    {"mlp.down_proj", kHidden, kFfn, false}};
constexpr const char* kNorms[] = {"input_layernorm", "post_attention_layernorm"};

std::string in_layer(int64_t layer, const char* name) { return fmt::format("model.layers.{}.{}.weight", layer, name); }

std::vector<TensorSpec> all_tensors() {
  std::vector<TensorSpec> all = {{"model.embed_tokens.weight", StoredType::bf16, {kVocab, kHidden}}};
  for (int64_t layer = 0; layer < kLayers; ++layer) {
    for (const Linear& l : kLinears) all.push_back({in_layer(layer, l.name), StoredType::bf16, {l.rows, l.cols}});
    for (const char* norm : kNorms) all.push_back({in_layer(layer, norm), StoredType::bf16, {kHidden}});
  }
  all.push_back({"model.norm.weight", StoredType::bf16, {kHidden}});
  all.push_back({"lm_head.weight", StoredType::bf16, {kVocab, kHidden}});
  return all;
}

class SparseModel {
 public:
  SparseModel() {
    std::vector<std::vector<TensorSpec>> files(1);
    int64_t bytes = 0;
    for (TensorSpec& tensor : all_tensors()) {
      if (bytes + tensor.bytes() > kFileBytes) {
        files.emplace_back();
        bytes = 0;
      }
      bytes += tensor.bytes();
      files.back().push_back(std::move(tensor));
    }
    require(static_cast<int64_t>(files.size()) == kFiles, "405B lies in 191 files");
    for (size_t i = 0; i < files.size(); ++i) {
      const std::string name = fmt::format("model-{:05}-of-{:05}.safetensors", i + 1, kFiles);
      write(dir_ / name, files[i]);
      for (const TensorSpec& tensor : files[i]) file_of_[tensor.name] = name;
    }
    write_text(dir_ / "model.safetensors.index.json", nlohmann::json{{"weight_map", file_of_}}.dump());
    write_text(dir_ / "config.json", write_model_config(*known_model("llama3.1-405b")));
  }

  const fs::path& path() const { return dir_.path(); }
  ModelConfig config() const { return read_model_config(path()); }
  // Takes a tensor's file out of the page cache, which would else fill with gigabytes of zeros.
  void forget(const std::string& tensor) const {
    const int file = ::open((path() / file_of(tensor)).c_str(), O_RDONLY);
    ::posix_fadvise(file, 0, 0, POSIX_FADV_DONTNEED);
    ::close(file);
  }
  const std::string& file_of(const std::string& tensor) const { return file_of_.at(tensor); }

 private:
  static void write(const fs::path& file, std::vector<TensorSpec> tensors) {
    sort_canonically(tensors);
    const std::string text = safetensors_text(safetensors_header(tensors, {{"format", "pt"}}), 0);
    std::ofstream(file, std::ios::binary) << text;
    size_t bytes = text.size();
    for (const TensorSpec& tensor : tensors) bytes += static_cast<size_t>(tensor.bytes());
    fs::resize_file(file, bytes);
  }

  ScratchDirectory dir_;
  std::map<std::string, std::string> file_of_;
};

struct Slice {
  int64_t row = 0, rows = 0, col = 0, cols = 0;
  int64_t bytes() const { return rows * cols * kBf16Bytes; }
  bool operator==(const Slice&) const = default;
};
void PrintTo(const Slice& s, std::ostream* out) {
  *out << fmt::format("rows {}+{} columns {}+{}", s.row, s.rows, s.col, s.cols);
}
using Slices = std::map<std::string, Slice>;

class Noting : public WeightSource {
 public:
  Noting(WeightSource& inner, const SparseModel& model) : inner_(inner), model_(model) {}
  void read(const ParamSpec& spec, int64_t row, int64_t col, Tensor to) override {
    EXPECT_TRUE(slices.emplace(spec.name, Slice{row, to.rows, col, to.cols}).second) << spec.name << " is read twice";
    inner_.read(spec, row, col, to);
    model_.forget(spec.name);
  }
  Slices slices;

 private:
  WeightSource& inner_;
  const SparseModel& model_;
};

constexpr Slice kWholeNorm{0, kHidden, 0, 1};
Slices with_layers(Slices slices, LayerRange layers, int64_t tp) {
  for (int64_t layer = layers.begin; layer < layers.end; ++layer) {
    for (const Linear& l : kLinears) {
      slices[in_layer(layer, l.name)] = l.rows_dealt ? Slice{l.rows / kTp * tp, l.rows / kTp, 0, l.cols}
                                                     : Slice{0, l.rows, l.cols / kTp * tp, l.cols / kTp};
    }
    for (const char* norm : kNorms) slices[in_layer(layer, norm)] = kWholeNorm;
  }
  return slices;
}
Slice vocabulary_slice(int64_t tp) { return {kVocab / kTp * tp, kVocab / kTp, 0, kHidden}; }
constexpr int64_t kVocabularyBytes = kVocab / kTp * kHidden * kBf16Bytes;
constexpr int64_t kLayerBytes =
    (2 * kHidden + (2 * kHidden * kHidden + 2 * kKeys * kHidden + 3 * kFfn * kHidden) / kTp) * kBf16Bytes;

// The model's files that this process has open.
std::set<std::string> opened(const fs::path& directory) {
  std::set<std::string> files;
  for (const fs::directory_entry& open : fs::directory_iterator("/proc/self/fd")) {
    std::error_code gone;  // the iterator's own
    const fs::path file = fs::read_symlink(open.path(), gone);
    if (file.parent_path() == directory) files.insert(file.filename().string());
  }
  return files;
}

// A device that counts and yet is given its weights: its memory is not where it says, and what is uploaded is dropped.
class GivenWeights : public CountBackend {
 public:
  Memory& memory() override { return memory_; }

 private:
  struct Claimed : Memory {
    explicit Claimed(Memory& of) : counted(of) {}
    void* allocate(int64_t bytes) override { return counted.allocate(bytes); }
    void release(void* block, int64_t bytes) override { counted.release(block, bytes); }
    Where where() const override { return Where::device; }
    Memory& counted;
  };
  Claimed memory_{CountBackend::memory()};
};

// One rank of tp 8 · pp 16.
class Sparse405b : public testing::Test {
 protected:
  // What the rank's engine asks for: its slices of `layers`, and `ends` of the embedding, the last norm and the head.
  void expect_asks(MeshPosition position, LayerRange layers, const Slices& ends) {
    EngineSettings settings = settings_of(model_.config());
    const LayerRange stage = settings.partition[static_cast<size_t>(position.pp())];
    EXPECT_EQ(stage.begin, layers.begin);
    EXPECT_EQ(stage.end, layers.end);
    NoWeights nothing;
    EXPECT_EQ(open(settings, position, nothing), with_layers(ends, layers, position.tp()));
  }

  // What it reads of the files. Its first layers only: page faults in holes cost seconds a layer.
  void expect_reads(MeshPosition position, LayerRange layers, const Slices& ends, int64_t bytes) {
    ModelDirectory directory(model_.path());
    EngineSettings settings = settings_of(directory.config());
    settings.partition[static_cast<size_t>(position.pp())] = layers;
    EXPECT_THAT(opened(model_.path()), testing::IsEmpty());
    BaseWeights weights(directory);
    std::ofstream("/proc/self/clear_refs") << 5;  // the peak counts from here
    const int64_t before = current_process_bytes();
    open(settings, position, weights);
    const int64_t grown = peak_process_bytes() - before;

    EXPECT_EQ(directory.bytes_read(), bytes);
    std::set<std::string> files;
    std::set<int64_t> sizes;
    for (const auto& [name, slice] : with_layers(ends, layers, position.tp())) {
      files.insert(model_.file_of(name));
      sizes.insert(slice.bytes());
    }
    EXPECT_EQ(opened(model_.path()), files);
    const int64_t largest = *sizes.rbegin();  // what the buffer holds that is read into
    EXPECT_LE(grown, largest + kMargin);
    EXPECT_GT(bytes, largest + 4 * kMargin);  // pages that stayed would be seen
  }

  static constexpr MeshShape kShape{{Axis::tp, kTp}, {Axis::pp, 16}};

  EngineSettings settings_of(const ModelConfig& model) const {
    const std::string overrides[] = {"parallel.pp=16", "model.path=" + model_.path().string()};
    const ReadRecipe read =
        read_recipe(fs::path(DROVER_SOURCE_DIR) / "configs" / "recipes" / "llama3.1-405b-lora.yaml", overrides);
    return engine_settings(read.recipe, model, adapter_layout_of(model, adapter_config(read)),
                           check_mesh(read.recipe, kShape.size()), nullptr);
  }

 private:
  static constexpr int64_t kMargin = int64_t{64} << 20;

  Slices open(const EngineSettings& settings, const MeshPosition& position, WeightSource& source) const {
    Noting noting(source, model_);
    const Device device{std::make_shared<GivenWeights>(), make_count_mesh(kShape, position)};
    Replica replica(settings, device, noting, kPlenty);
    const Engine engine(settings, replica, kPlenty.saved);
    return noting.slices;
  }

 protected:
  SparseModel model_;
};

// All that a rank does before its first step, without its weights' bytes: the directory opened and its stage's tensors
// checked and fingerprinted, the plan of all 128 ranks, the schedule proven, and its share of the adapter made and
// drawn (on the CPU backend, which stands in for the device).
TEST_F(Sparse405b, StartingWithoutTheWeightsTakesSeconds) {
  using Clock = std::chrono::steady_clock;
  constexpr double kMostSeconds = 10;
  const MeshPosition position{{Axis::tp, 3}, {Axis::pp, 7}};
  auto last = Clock::now();
  double total = 0;
  const auto lap = [&](const char* what) {
    const double seconds = std::chrono::duration<double>(Clock::now() - last).count();
    std::printf("  %-28s %6.2f s\n", what, seconds);
    total += seconds;
    last = Clock::now();
  };
  ModelDirectory directory(model_.path());
  const EngineSettings settings = settings_of(directory.config());
  lap("directory and settings");
  const auto world = make_self_communicator("world");
  EXPECT_FALSE(
      check_weights_together(directory, settings.partition[static_cast<size_t>(position.pp())], *world).empty());
  lap("names, shapes, fingerprint");
  const std::vector<RankPlan> plans = plan_mesh(settings, kShape);
  lap("plan of 128 ranks");
  EXPECT_FALSE(schedule_of_run(settings, kShape).empty());
  lap("schedule");
  const ArenaBytes bytes = plans[static_cast<size_t>(rank_of(position, kShape))].bytes;
  const auto backend = make_cpu_backend(1);
  Arena adapter("adapter", backend->memory(), bytes.adapter),
      optimizer("optimizer", backend->memory(), bytes.optimizer);
  const LayerRange layers = settings.partition[static_cast<size_t>(position.pp())];
  const Placement placement{position.tp(), kTp, layers.begin, layers.end, false, false};
  const std::vector<FactorSlice> factors = factor_slices(settings.model, settings.adapter, placement);
  const Trainables trainables({factors.begin(), factors.end()}, *backend, adapter, &optimizer);
  AdapterSet share(settings.adapter, factors, trainables.parameters, trainables.gradients, DType::bf16, *backend,
                   adapter);
  share.initialise(42);
  lap("adapter of one rank");
  EXPECT_LT(total, kMostSeconds);
}

TEST_F(Sparse405b, AMiddleStageReadsItsLayersOnly) {
  const MeshPosition position{{Axis::tp, 3}, {Axis::pp, 7}};
  expect_asks(position, {55, 63}, {});
  expect_reads(position, {55, 57}, {}, 2 * kLayerBytes);
}

TEST_F(Sparse405b, TheFirstStageReadsItsVocabularySliceToo) {
  const MeshPosition position{{Axis::tp, 3}};
  const Slices ends = {{"model.embed_tokens.weight", vocabulary_slice(3)}};
  expect_asks(position, {0, 7}, ends);
  expect_reads(position, {0, 1}, ends, kVocabularyBytes + kLayerBytes);
}

TEST_F(Sparse405b, TheLastStageReadsItsVocabularySliceToo) {
  const MeshPosition position{{Axis::tp, 7}, {Axis::pp, 15}};
  const Slices ends = {{"model.norm.weight", kWholeNorm}, {"lm_head.weight", vocabulary_slice(7)}};
  expect_asks(position, {119, 126}, ends);
  expect_reads(position, {119, 120}, ends, kVocabularyBytes + kHidden * kBf16Bytes + kLayerBytes);
}

}  // namespace
}  // namespace drover
