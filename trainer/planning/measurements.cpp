// Which models and lengths are measured: every op at sizes around those that runs have.
#include "trainer/planning/calibrate.h"

namespace drover {

namespace {

std::vector<Measurements::Steps> steps_to_measure(bool own_memory) {
  const int64_t scale = own_memory ? 4 : 1;  // a GPU's ops take long enough from larger sizes on
  const MadeModel small{.hidden = 512 * scale,
                        .ffn = 1536 * scale,
                        .head_dim = own_memory ? 128 : 64,
                        .kv_heads = own_memory ? 4 : 2,
                        .layers = 4},
      middle{.hidden = 1024 * scale,
             .ffn = 3072 * scale,
             .head_dim = own_memory ? 128 : 64,
             .kv_heads = own_memory ? 8 : 4,
             .layers = 2},
      large{.hidden = 2048 * scale, .ffn = 6144 * scale, .head_dim = 128, .kv_heads = own_memory ? 8 : 4, .layers = 1};
  std::vector<Measurements::Steps> steps;
  const auto add = [&](const MadeModel& model, int64_t tokens, int64_t document, int times) -> MadeStep& {
    return steps.emplace_back(Measurements::Steps{{.model = model, .tokens = tokens, .document = document}, times})
        .step;
  };
  add(small, 64, 64, 4);
  add(small, 256, 256, 3);
  add(small, 512, 512, 3);
  add(small, 1024, 1024, 2).r = 64;
  add(small, 2048, 256, 2);
  add(small, 2048, 2048, 2);
  add(small, 4096, 4096, 1);
  add(small, 512, 512, 2).r = 8;
  add(small, 512, 512, 2).dropout = 0.1f;
  add(middle, 256, 256, 3);
  add(middle, 1024, 1024, 2).r = 32;
  add(middle, 2048, 512, 1);
  MadeModel odd = middle;  // KV heads that two threads cannot share evenly
  odd.hidden = 768 * scale, odd.ffn = 2048 * scale, odd.kv_heads = own_memory ? 6 : 3;
  add(odd, 512, 512, 3);
  add(odd, 2048, 2048, 1);
  add(large, 128, 128, 3);
  add(large, 512, 512, 2);
  add(large, 1024, 1024, 1);
  for (const WeightsAs coded : {WeightsAs::fp8, WeightsAs::nf4}) {
    add(small, 512, 512, 2).weights = coded;
    add(middle, 1024, 1024, 1).weights = coded;
  }
  for (const MadeModel& model : {small, middle}) {
    if (!own_memory) break;  // a CPU only emulates products in fp8
    MadeStep& step = add(model, 2048, 2048, 2);
    step.weights = WeightsAs::fp8, step.products = Products::fp8;
  }
  add(small, 512, 512, 2).dtype = DType::f32;
  add(middle, 1024, 1024, 1).dtype = DType::f32;
  add(small, 256, 256, 2).tp = 2;
  add(small, 2048, 2048, 1).tp = 2;
  return steps;
}

std::vector<MadePasses> passes_to_measure(bool own_memory) {
  const int64_t scale = own_memory ? 4 : 1;
  const MadeModel small{.hidden = 512 * scale,
                        .ffn = 1536 * scale,
                        .head_dim = own_memory ? 128 : 64,
                        .kv_heads = own_memory ? 4 : 2,
                        .layers = own_memory ? 8 : 24,
                        .vocab = 32768},
      middle{.hidden = 1024 * scale,
             .ffn = 3072 * scale,
             .head_dim = own_memory ? 128 : 64,
             .kv_heads = own_memory ? 8 : 4,
             .layers = own_memory ? 4 : 12,
             .vocab = 32768};
  return {{small, WeightsAs::dense, {32, 512, 2048}},
          {middle, WeightsAs::dense, {64, 1024}},
          {middle, WeightsAs::fp8, {64, 512}},
          {middle, WeightsAs::nf4, {64, 512}}};
}

}  // namespace

Measurements usual_measurements(bool own_memory) {
  return {.steps = steps_to_measure(own_memory), .passes = passes_to_measure(own_memory)};
}

}  // namespace drover
