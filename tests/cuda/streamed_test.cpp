// Streamed weights on the CUDA backend, over a device whose streams are queues of their own: the bits of resident ones,
// from images in pinned memory, with the adapters' copies next to the weights, and without a wait of the host.
#include "tests/cuda/emulation/streams.h"
#include "tests/cuda/training.h"

namespace drover {
namespace {

struct Format {
  const char* name;
  DType dtype;
  WeightsAs weights;
};

struct Numbers {
  std::vector<double> losses;
  std::map<std::string, std::vector<float>> parameters;
  int64_t waits = 0, uploaded_bytes = 0, copied_bytes = 0;  // in the last step, while it was enqueued
  int64_t host_bytes = 0;
};

// Six layers, of which two have more of an adapter than the others, so that what lies in a slot differs.
EngineSettings settings_of(const Format& format, bool recompute, bool streamed) {
  EngineSettings s = settings_of(Case{.dtype = format.dtype, .recompute = recompute, .head = false});
  s.model.hidden = 64, s.model.head_dim = 16, s.model.ffn = 128, s.model.layers = 6;
  s.adapter = adapter_layout(s.model, [](const std::string& path) -> std::optional<LowRankSpec> {
    if (path.starts_with("model.layers.2.")) return LowRankSpec{24, 1.5f};
    if (path.starts_with("model.layers.4.") && !path.ends_with("v_proj")) return std::nullopt;
    return LowRankSpec{3, 1.5f};
  });
  s.partition = {{0, 6}};
  s.weights = format.weights;
  s.streamed = streamed;
  s.traits = cuda::kTraits;
  return s;
}

Numbers train(const Format& format, bool recompute, bool streamed) {
  const EngineSettings s = settings_of(format, recompute, streamed);
  const RankPlan plan = plan_rank(s, {}, {});
  const auto backend = cuda_under_test();
  DrawnWeights weights(11, 0.15f, 0.5f);
  Replica replica(s, {backend, make_self_mesh()}, weights, plan.bytes);
  Engine engine(s, replica, plan.bytes.saved);
  replica.adapter->load([](const FactorSlice& f, float* values) {
    for (int64_t i = 0; i < f.size(); ++i) values[i] = drawn(5, f.name, i, 0, 0.3f);
  });
  Numbers numbers;
  for (int64_t step = 1; step <= 3; ++step) {
    const int64_t waits = cuda::emulation::waits, uploaded = backend->traffic().uploaded_bytes;
    const int64_t copied = streamed ? replica.streamed_weights->copied_bytes() : 0;
    PendingStep pending = engine.enqueue_step(batch_of(step), step);
    numbers.waits = cuda::emulation::waits - waits;
    numbers.uploaded_bytes = backend->traffic().uploaded_bytes - uploaded;
    if (streamed) numbers.copied_bytes = replica.streamed_weights->copied_bytes() - copied;
    const StepResult result = pending.result();
    numbers.losses.insert(numbers.losses.end(), {result.loss, result.grad_norm});
  }
  numbers.losses.push_back(engine.evaluate(batch_of(9)));
  numbers.parameters = named(replica, replica.adapter->parameters);
  EXPECT_EQ(engine.peak().weights, plan.bytes.weights);
  if (streamed) {
    EXPECT_EQ(replica.streamed_weights->host_bytes(), plan.host_bytes);
    EXPECT_EQ(numbers.copied_bytes, plan.copied_bytes);
  }
  return numbers;
}

class CudaStreamed : public testing::TestWithParam<Format> {
 protected:
  CudaStreamed() { cuda::emulation::asynchronous = true; }
  ~CudaStreamed() override { cuda::emulation::asynchronous = false; }
};

TEST_P(CudaStreamed, HaveTheBitsOfResidentWeights) {
  for (const bool recompute : {false, true}) {
    const Numbers resident = train(GetParam(), recompute, false), streamed = train(GetParam(), recompute, true);
    EXPECT_EQ(streamed.losses, resident.losses) << recompute;
    EXPECT_EQ(streamed.parameters, resident.parameters) << recompute;
    EXPECT_GE(streamed.uploaded_bytes - resident.uploaded_bytes, streamed.copied_bytes);
    EXPECT_GT(streamed.copied_bytes, 0);
    EXPECT_EQ(streamed.waits, resident.waits) << "copies do not hold the host up";
  }
}

INSTANTIATE_TEST_SUITE_P(Formats, CudaStreamed,
                         testing::Values(Format{"fp32", DType::f32, WeightsAs::as_is},
                                         Format{"bf16", DType::bf16, WeightsAs::as_is},
                                         Format{"fp8", DType::bf16, WeightsAs::fp8},
                                         Format{"nf4", DType::bf16, WeightsAs::nf4}),
                         [](const auto& info) { return std::string(info.param.name); });

}  // namespace
}  // namespace drover
