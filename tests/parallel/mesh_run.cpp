// A short training run of a made-up model on any mesh, started under mpirun by invariance_test.cpp: key=value arguments
// in, losses, gradients of the first step and parameters after the last one out (by global tensor name, gathered to
// rank 0). `break=…` breaks one invariant on purpose, so that the test can show that it would notice.
#include <algorithm>
#include <cstdio>
#include <cstring>
#include <fstream>
#include <map>
#include <numeric>
#include <sstream>

#include "kernels/base/error.h"
#include "kernels/base/nf4.h"
#include "kernels/base/quantise.h"
#include "tests/parallel/device_under_test.h"
#include "tests/support/made_up.h"
#include "trainer/engine/engine.h"
#include "trainer/engine/plan.h"

namespace drover {
namespace {

struct Arguments {
  std::map<std::string, std::string> values;
  std::string text(const std::string& key, const std::string& otherwise) const {
    return values.count(key) ? values.at(key) : otherwise;
  }
  int64_t number(const std::string& key, int64_t otherwise) const {
    return values.count(key) ? std::stoll(values.at(key)) : otherwise;
  }
  double real(const std::string& key, double otherwise) const {
    return values.count(key) ? std::stod(values.at(key)) : otherwise;
  }
};

// A communicator whose reductions of one kind go wrong.
class Broken : public Communicator {
 public:
  enum class What { skip_reductions, skip_f32_vectors, skip_f64_vectors, double_f64, empty_backward };
  Broken(std::shared_ptr<Communicator> inner, What what) : inner_(std::move(inner)), what_(what) {}
  int rank() const override { return inner_->rank(); }
  int size() const override { return inner_->size(); }
  const std::string& axis() const override { return inner_->axis(); }
  void all_reduce(Tensor x) override {
    if (what_ == What::skip_reductions && x.cols > 1) return;                             // activations
    if (what_ == What::skip_f32_vectors && x.cols == 1 && x.dtype == DType::f32) return;  // gradients
    if (what_ == What::skip_f64_vectors && x.cols == 1 && x.dtype == DType::f64) return;  // norms
    inner_->all_reduce(x);
    if (what_ == What::double_f64 && x.dtype == DType::f64)
      x.as<double>()[0] *= 2;  // the norm of split factors counted twice
  }
  void all_gather(Tensor part, Tensor whole) override { inner_->all_gather(part, whole); }
  void broadcast(Tensor x, int root) override { inner_->broadcast(x, root); }
  void barrier() override { inner_->barrier(); }
  std::vector<std::optional<std::string>> roll_call(const std::string& mine, double seconds) override {
    return inner_->roll_call(mine, seconds);
  }
  std::unique_ptr<Transfer> exchange(std::span<const PeerMessage> messages) override {
    for (const PeerMessage& m : messages) {
      if (what_ == What::empty_backward && m.way == PeerMessage::Way::send && m.peer < inner_->rank())
        std::memset(m.x.data, 0, static_cast<size_t>(m.x.bytes()));
    }
    return inner_->exchange(messages);
  }
  std::vector<std::string> gather_strings(const std::string& mine) override { return inner_->gather_strings(mine); }

 private:
  std::shared_ptr<Communicator> inner_;
  What what_;
};

// Sums that are done at once, and yet give a micro-batch reason to pass in two parts.
class InParts : public Communicator {
 public:
  explicit InParts(std::shared_ptr<Communicator> inner) : inner_(std::move(inner)) {}
  int rank() const override { return inner_->rank(); }
  int size() const override { return inner_->size(); }
  const std::string& axis() const override { return inner_->axis(); }
  void all_reduce(Tensor x) override { inner_->all_reduce(x); }
  bool overlaps_sums() const override { return true; }
  void all_gather(Tensor part, Tensor whole) override { inner_->all_gather(part, whole); }
  void broadcast(Tensor x, int root) override { inner_->broadcast(x, root); }
  void barrier() override { inner_->barrier(); }
  std::vector<std::optional<std::string>> roll_call(const std::string& mine, double seconds) override {
    return inner_->roll_call(mine, seconds);
  }
  std::unique_ptr<Transfer> exchange(std::span<const PeerMessage> messages) override {
    return inner_->exchange(messages);
  }
  std::vector<std::string> gather_strings(const std::string& mine) override { return inner_->gather_strings(mine); }

 private:
  std::shared_ptr<Communicator> inner_;
};

// Weights of which every rank gets its neighbour's slice of layer 1's down projection: a block that lies on the wrong
// rank.
class SwappedWeights : public WeightSource {
 public:
  SwappedWeights(WeightSource& inner, const Mesh& mesh) : inner_(inner), mesh_(mesh) {}
  void read(const ParamSpec& spec, int64_t row, int64_t col, Tensor to) override {
    const int neighbour = (mesh_.position.tp() + 1) % mesh_.shape.tp();
    if (spec.name == "model.layers.1.mlp.down_proj.weight") col = to.cols * neighbour;
    inner_.read(spec, row, col, to);
  }

 private:
  WeightSource& inner_;
  const Mesh& mesh_;
};

// Weights of which every slice is quantised to NF4 by itself, with a double quantisation of its own. (Of fp8 that would
// not be seen: a scale twice as large, and codes half as large, are the same numbers.)
class OwnBlocks : public WeightSource {
 public:
  explicit OwnBlocks(WeightSource& inner) : inner_(inner) {}
  void read(const ParamSpec& spec, int64_t row, int64_t col, Tensor to) override {
    inner_.read(spec, row, col, to);
    if (spec.split != Split::output && spec.split != Split::input) return;
    std::vector<float> values(to.as<float>(), to.as<float>() + to.size());
    std::vector<float> absmax;
    for (size_t i = 0; i < values.size(); i += kNf4Block) {
      absmax.push_back(largest_magnitude(std::span(values).subspan(i, kNf4Block)));
    }
    dequantise(Nf4Scales(absmax, to.cols).make(values, 0, to.rows, 0, to.cols), to.as<float>());
  }

 private:
  WeightSource& inner_;
};

WeightsAs weights_of(const std::string& word) {
  if (word == "fp8") return WeightsAs::fp8;
  if (word == "nf4") return WeightsAs::nf4;
  require(word == "as_is", "weights are as_is, fp8 or nf4");
  return WeightsAs::as_is;
}

ModelConfig model_of(const Arguments& a) {
  ModelConfig c;
  c.hidden = a.number("hidden", 64);
  c.layers = a.number("layers", 4);
  c.heads = a.number("heads", 8);
  c.kv_heads = a.number("kv_heads", 4);
  c.head_dim = a.number("head_dim", 12);
  c.ffn = a.number("ffn", 160);
  c.vocab = a.number("vocab", 323);
  c.max_positions = 512;
  c.tied_head = a.number("tied", 0) != 0;
  c.rope_scaling = RopeScaling{8, 1, 4, 32};
  return c;
}

AdapterLayout layout_of(const ModelConfig& c, const std::string& targets) {
  AdapterLayout layout = empty_layout(c);
  for (const auto [l, p] : linears_of(c)) {
    const bool head = p == Projection::head;
    bool on = targets == "all" && !head;
    if (targets == "upper") on = l >= c.layers / 2 && l % 2 == 0 && p != Projection::q && !head;
    if (targets == "down_only") on = l >= 1 && p == Projection::down;
    if (targets == "head") on = head;
    if (targets == "head_and_o") on = head || p == Projection::o;
    if (on) layout[static_cast<size_t>(l)][static_cast<size_t>(p)] = LowRankSpec{3 + static_cast<int64_t>(p) % 2, 1.5f};
  }
  return layout;
}

// Micro-batches of `size` documents each; documents of unequal length.
Batch batch_of(const Arguments& a, const Mesh& mesh, const ModelConfig& c, int64_t step) {
  const int64_t documents = a.number("documents", 8), size = a.number("micro_batch_size", 1), vocab = c.vocab;
  std::vector<MicroBatch> all;
  for (int64_t first = 0; first < documents; first += size) {
    std::vector<int64_t> lengths;
    for (int64_t d = first; d < std::min(first + size, documents); ++d)
      lengths.push_back(1 + (d * 37 + step * 11) % a.number("longest", 47));
    all.push_back(made_up_micro_batch(7, lengths, static_cast<int>(step * documents + first), vocab,
                                      static_cast<int64_t>(all.size())));
  }
  Batch batch;
  batch.total = static_cast<int64_t>(all.size());
  for (const MicroBatch& m : all) {
    for (float w : m.weights) batch.weight_sum += w;
  }
  const int64_t begin = batch.total * mesh.position.dp() / mesh.shape.dp(),
                end = batch.total * (mesh.position.dp() + 1) / mesh.shape.dp();
  batch.micro_batches.assign(all.begin() + begin, all.begin() + end);
  return batch;
}

// What fails where documents share a micro-batch, or ranks a step.
void break_batch(Batch& batch, const std::string& broken) {
  if (broken == "mean_of_means") {  // each replica divides by its own weights
    batch.weight_sum = 0;
    for (const MicroBatch& m : batch.micro_batches) {
      for (float w : m.weights) batch.weight_sum += w;
    }
  }
  if (broken == "lost_micro_batch") batch.micro_batches.pop_back();
  for (MicroBatch& m : batch.micro_batches) {
    if (broken == "leaky_packing") m.spans = {{0, static_cast<int64_t>(m.tokens.size())}};
    if (broken == "running_positions") std::iota(m.positions.begin(), m.positions.end(), 0);
    if (broken == "dropout_by_row") std::iota(m.documents.begin(), m.documents.end(), 0);
  }
}

// name → global matrix, on rank 0 of the world.
using Named = std::map<std::string, std::vector<float>>;
Named gathered(const Replica& replica, Tensor flat) {
  std::ostringstream mine;
  const AdapterSet& adapter = *replica.adapter;
  const Mesh& mesh = replica.device.mesh;
  if (mesh.position.dp() == 0) {
    std::vector<float> values;
    for (const FactorSlice& f : adapter.factors()) {
      if (f.whole && mesh.position.tp() != 0) continue;
      values.resize(static_cast<size_t>(f.size()));
      replica.backend().download(view(flat, f), values.data());
      mine << f.name << ' ' << f.rows << ' ' << f.cols << ' ' << f.row_begin << ' ' << f.row_count << ' ' << f.col_begin
           << ' ' << f.col_count << '\n';
      mine.write(reinterpret_cast<const char*>(values.data()),
                 static_cast<std::streamsize>(values.size() * sizeof(float)));
    }
  }
  Named result;
  for (const std::string& part : mesh.world->gather_strings(mine.str())) {
    std::istringstream in(part);
    std::string name;
    int64_t rows, cols, row_begin, row_count, col_begin, col_count;
    while (in >> name >> rows >> cols >> row_begin >> row_count >> col_begin >> col_count) {
      in.get();
      std::vector<float>& global = result[name];
      global.resize(static_cast<size_t>(rows * cols));
      for (int64_t r = 0; r < row_count; ++r) {
        in.read(reinterpret_cast<char*>(global.data() + (row_begin + r) * cols + col_begin),
                static_cast<std::streamsize>(col_count * 4));
      }
    }
  }
  return result;
}

int run(int argc, char** argv) {
  Arguments a;
  for (int i = 1; i < argc; ++i) {
    const std::string text = argv[i];
    a.values[text.substr(0, text.find('='))] = text.substr(text.find('=') + 1);
  }
  MeshShape shape;
  for (const Axis axis : kAxes) shape[axis] = static_cast<int>(a.number(name_of(axis), 1));
  Mesh mesh = shape.size() == 1 && !launched_by_mpi() ? make_self_mesh() : make_mpi_mesh(shape);
  const std::string broken = a.text("break", "");
  const auto break_sums = [&](Axis axis, Broken::What what) {
    mesh.axes[axis] = std::make_shared<Broken>(mesh.axes[axis], what);
  };
  if (broken == "tp_reduction") break_sums(Axis::tp, Broken::What::skip_reductions);
  if (broken == "whole_factor_sum") break_sums(Axis::tp, Broken::What::skip_f32_vectors);
  if (broken == "dp_sum") break_sums(Axis::dp, Broken::What::skip_f32_vectors);
  if (broken == "empty_backward") break_sums(Axis::pp, Broken::What::empty_backward);
  if (broken == "norm_of_one_stage") break_sums(Axis::pp, Broken::What::skip_f64_vectors);
  if (broken == "norm_twice") break_sums(Axis::tp, Broken::What::double_f64);

  if (a.number("parts", 1) == 2) mesh.axes[Axis::tp] = std::make_shared<InParts>(mesh.axes[Axis::tp]);

  EngineSettings s;
  s.least_part_rows = 1;
  s.model = model_of(a);
  s.adapter = layout_of(s.model, a.text("targets", "all"));
  s.partition = partition_layers(s.model.layers, shape.pp(), 0.5);
  s.dtype = a.text("dtype", "fp32") == "bf16" ? DType::bf16 : DType::f32;
  s.max_positions = 64 * a.number("micro_batch_size", 1);  // for positions that run on
  const int64_t steps = a.number("steps", 5);
  for (int64_t step = 0; step < steps; ++step) {
    for (const MicroBatch& m : batch_of(a, make_self_mesh(), s.model, step).micro_batches) {
      s.capacity.micro_batch.tokens = std::max(s.capacity.micro_batch.tokens, static_cast<int64_t>(m.tokens.size()));
      s.capacity.micro_batch.trained_tokens =
          std::max<int64_t>(s.capacity.micro_batch.trained_tokens,
                            std::count_if(m.labels.begin(), m.labels.end(), [](int32_t label) { return label >= 0; }));
    }
    s.capacity.local_micro_batches =
        std::max(s.capacity.local_micro_batches,
                 (batch_of(a, make_self_mesh(), s.model, step).total + shape.dp() - 1) / shape.dp());
  }
  s.weights = weights_of(a.text("weights", "as_is"));
  s.deterministic = a.number("deterministic", 0) != 0;
  s.recompute = a.number("recompute", 0) != 0;
  s.streamed = a.number("streamed", 0) != 0;
  s.dropout = static_cast<float>(a.real("dropout", 0));
  // An eps of the size of the gradients: AdamW's first step is then smooth in them, and parameters can be compared as
  // closely as gradients.
  s.optimizer = {.learning_rate = {LearningRateShape::constant, 5e-3},
                 .eps = 1e-3,
                 .weight_decay = 0.01,
                 .max_grad_norm = a.real("clip", 0.05),
                 .group_rates = {1, a.real("rate_of_b", 1)}};

  Device device = device_under_test(mesh);
  s.traits = device.backend->traits();
  s.overlaps_sums = device.mesh.tp().overlaps_sums();
  DrawnWeights even(11, static_cast<float>(a.real("std", 0.15)), 0.5f);
  VariedWeights varied(11, static_cast<float>(a.real("std", 0.15)), 0.5f);
  DrawnWeights& drawn_weights = a.number("varied", 0) != 0 ? varied : even;
  SwappedWeights swapped(drawn_weights, mesh);
  OwnBlocks own_blocks(drawn_weights);
  const ArenaBytes planned = plan_rank(s, shape, mesh.position).bytes;
  const bool swaps = broken == "swapped_blocks" && shape.size() > 1;
  WeightSource* source = swaps ? static_cast<WeightSource*>(&swapped) : &drawn_weights;
  if (broken == "own_blocks") source = &own_blocks;
  Replica replica(s, device, *source, planned);
  Engine engine(s, replica, planned.saved);
  replica.adapter->load([](const FactorSlice& f, float* values) {  // A and B both away from zero
    for (int64_t r = 0; r < f.row_count; ++r) {
      for (int64_t c = 0; c < f.col_count; ++c)
        *values++ =
            drawn(5, f.name, (f.row_begin + r) * f.cols + f.col_begin + c, 0, f.factor == Factor::b ? 0.3f : 0.5f);
    }
  });

  std::vector<double> losses, norms;
  Named gradients;
  for (int64_t step = 0; step < steps; ++step) {
    Batch batch = batch_of(a, mesh, s.model, step);
    break_batch(batch, broken);
    losses.push_back(engine.accumulate_gradients(batch, step + 1));
    if (step == 0) gradients = gathered(replica, replica.adapter->gradients);
    norms.push_back(engine.apply_gradients(step + 1));
  }
  const Named parameters = gathered(replica, replica.adapter->parameters);
  require(engine.peak().total() <= planned.total(), "the arenas stayed within the plan");
  // With dp the largest micro-batch may be another rank's; and parts of micro-batches that pass the layers together may
  // meet at their largest.
  if (shape.dp() == 1 && broken.empty() && !(s.streamed && s.overlaps_sums)) {
    for (int64_t step = 0; step < steps; ++step)
      engine.evaluate(batch_of(a, mesh, s.model, step));  // a plan is for training and evaluation
    require(static_cast<double>(engine.peak().total()) >= 0.99 * static_cast<double>(planned.total()),
            "the arenas reach what was planned within 1 %");
  }
  const int64_t stream_bytes = s.capacity.micro_batch.tokens * s.model.hidden * size_of(s.dtype);
  require(stream_bytes >= a.number("message_bytes", 0), "messages between stages are as large as the test says");

  if (mesh.world->rank() == 0) {
    std::ofstream out(a.text("out", "/dev/stdout"), std::ios::binary);
    for (size_t i = 0; i < losses.size(); ++i)
      out << fmt::format("step {} {:.17g} {:.17g}\n", i + 1, losses[i], norms[i]);
    for (const auto& [kind, named] :
         {std::pair<const char*, const Named*>{"gradient", &gradients}, {"parameter", &parameters}}) {
      for (const auto& [name, values] : *named) {
        out << kind << ' ' << name << ' ' << values.size() << '\n';
        out.write(reinterpret_cast<const char*>(values.data()),
                  static_cast<std::streamsize>(values.size() * sizeof(float)));
        out << '\n';
      }
    }
  }
  mesh.world->barrier();
  return 0;
}

}  // namespace
}  // namespace drover

int main(int argc, char** argv) {
  using namespace drover;
  const bool mpi = launched_by_mpi();
  if (mpi) start_mpi(&argc, &argv);
  try {
    const int code = run(argc, argv);
    if (mpi) finish_mpi();
    return code;
  } catch (const std::exception& error) {
    std::fprintf(stderr, "%s\n", error.what());
    if (mpi) abort_all(70);
    return 70;
  }
}
