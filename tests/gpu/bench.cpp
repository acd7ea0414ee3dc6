// Speeds of the CUDA backend's ops at Llama 3.1 8B's shapes, each as a share of what the device gives: pointwise ops of
// the measured copy bandwidth, products with their low-rank term of the same product without, attention in TFLOP/s
// next to this project's own kernels. One line of JSON a figure. Times are medians of device events over rotating
// operands that together do not fit the L2 cache. Usage: gpu_bench [TOKENS]
#include <cuda_runtime_api.h>

#include <algorithm>
#include <cstdio>
#include <functional>
#include <nlohmann/json.hpp>
#include <random>

#include "kernels/base/error.h"
#include "kernels/cuda/attention_plans.h"
#include "kernels/cuda/check.h"
#include "kernels/cuda/cuda_backend.h"
#include "kernels/cuda/matmul_tuning.h"

namespace drover::cuda {
namespace {

using nlohmann::ordered_json;

constexpr int64_t kHidden = 4096, kHeads = 32, kKvHeads = 8, kHeadDim = 128, kFfn = 14336, kVocab = 128256, kRank = 16;
constexpr int64_t kMostAttentionTokens = 8192;
constexpr int64_t kProductTokens =
    4096;  // of the layer's products: longer ones run into the GPU's power limit, and compare clocks
constexpr int kSets = 3, kWarmup = 3, kRuns = 20;

void say(const ordered_json& line) {
  std::printf("%s\n", line.dump().c_str());
  std::fflush(stdout);
}

class Bench {
 public:
  explicit Bench(int64_t tokens) : t_(tokens), backend_(CudaSettings{}) {
    std::mt19937_64 draw(1);
    std::normal_distribution<float> normal(0, 1);
    busy_ = backend_.memory().allocate(kBusyBytes);
    busy_sum_ = matrix(backend_.memory().allocate(8), 1, 1, DType::f64, Where::device);
    check(cudaEventCreate(&begin_), "cudaEventCreate");
    check(cudaEventCreate(&end_), "cudaEventCreate");
    noise_.resize(size_t{1} << 20);
    for (bf16& x : noise_) x = bf16(normal(draw));
  }

  void all() {
    copy_bandwidth();
    pointwise();
    products();
    attention();
  }

 private:
  // A tensor of made-up values; f32 holds small ones.
  Tensor tensor(int64_t rows, int64_t cols, DType type = DType::bf16, int64_t pitch = 0) {
    Tensor x{nullptr, rows, cols, std::max(cols, pitch), type, Where::device};
    x.data = backend_.memory().allocate(rows * x.pitch * size_of(type));
    blocks_.push_back({x.data, rows * x.pitch * size_of(type)});
    if (type != DType::bf16) return x;  // zeroed
    const int64_t piece = static_cast<int64_t>(noise_.size()), all = rows * x.pitch;
    for (int64_t at = 0; at < all; at += piece) {
      Tensor part{static_cast<bf16*>(x.data) + at, 1,    std::min(piece, all - at),
                  std::min(piece, all - at),       type, Where::device};
      backend_.upload(noise_.data(), part);
    }
    return x;
  }
  // As the backend lays it out, all of it noise.
  cuda::StripWeight weight(int64_t out, int64_t in, int64_t rank) {
    const int64_t strip = cuda::low_rank_strip(rank);
    return {tensor(out + strip, in, DType::bf16, in + strip), {out, in, Format::bf16, rank}};
  }
  void release() {
    for (const auto& [data, bytes] : blocks_) backend_.memory().release(data, bytes);
    blocks_.clear();
  }

  // The device is kept busy while the host enqueues what is timed; it also empties the L2 cache. With `clean`, what
  // lies there then need not be written back first: a work that writes leaves as much behind as it finds, one that only
  // reads does not.
  float milliseconds_of(const std::function<void(int)>& run, int set, bool clean) {
    check(cudaMemsetAsync(busy_, 0, kBusyBytes, backend_.stream()), "cudaMemsetAsync");
    if (clean) backend_.sum_squares(matrix(busy_, kBusyBytes / 4, 1, DType::f32, Where::device), busy_sum_);
    check(cudaEventRecord(begin_, backend_.stream()), "cudaEventRecord");
    run(set);
    check(cudaEventRecord(end_, backend_.stream()), "cudaEventRecord");
    check(cudaEventSynchronize(end_), "cudaEventSynchronize");
    float ms = 0;
    check(cudaEventElapsedTime(&ms, begin_, end_), "cudaEventElapsedTime");
    return ms;
  }

  // Several works are timed in turn, so that they find the GPU equally warm.
  std::vector<double> medians_us(std::span<const std::function<void(int)>> works, bool clean = false) {
    std::vector<std::vector<float>> times(works.size());
    for (int i = 0; i < kWarmup + kRuns; ++i) {
      for (size_t w = 0; w < works.size(); ++w) {
        const float ms = milliseconds_of(works[w], i % kSets, clean);
        if (i >= kWarmup) times[w].push_back(ms);
      }
    }
    std::vector<double> medians;
    for (std::vector<float>& t : times) {
      std::nth_element(t.begin(), t.begin() + kRuns / 2, t.end());
      medians.push_back(1000.0 * static_cast<double>(t[kRuns / 2]));
    }
    return medians;
  }
  double median_us(const std::function<void(int)>& run, bool clean = false) {
    return medians_us({&run, 1}, clean).front();
  }

  void copy_bandwidth() {
    constexpr int64_t kBytes = int64_t{1} << 30;
    std::vector<Tensor> from, to;
    for (int i = 0; i < kSets; ++i)
      from.push_back(tensor(kBytes / 8192, 4096)), to.push_back(tensor(kBytes / 8192, 4096));
    const double us = median_us([&](int i) {
      check(cudaMemcpyAsync(to[static_cast<size_t>(i)].data, from[static_cast<size_t>(i)].data,
                            static_cast<size_t>(kBytes), cudaMemcpyDeviceToDevice, backend_.stream()),
            "cudaMemcpyAsync");
    });
    copy_gb_per_s_ = 2e-3 * static_cast<double>(kBytes) / us;
    say({{"bench", "copy"}, {"us", us}, {"gb_per_s", copy_gb_per_s_}});
    release();
  }

  void bytes_of(const char* name, double bytes, const std::function<void(int)>& run, bool only_reads = false) {
    const double us = median_us(run, only_reads), rate = bytes / us * 1e-3;
    say({{"bench", name}, {"us", us}, {"gb_per_s", rate}, {"share_of_copy", rate / copy_gb_per_s_}});
    release();
  }

  void pointwise() {
    const double row = 2.0 * static_cast<double>(t_);
    const auto sets = [&](int64_t rows, int64_t cols, DType type = DType::bf16, int64_t margin = 0) {
      std::vector<Tensor> made;
      for (int i = 0; i < kSets; ++i) made.push_back(tensor(rows, cols, type, cols + margin));
      return made;
    };
    const auto at = [](const std::vector<Tensor>& set, int i) { return set[static_cast<size_t>(i)]; };
    {
      const auto x = sets(t_, kHidden), y = sets(t_, kHidden, DType::bf16, 64);
      const Tensor w = tensor(kHidden, 1), rstd = tensor(t_, 1, DType::f32);
      bytes_of("rms_norm", row * 2 * kHidden, [&](int i) { backend_.rms_norm(at(x, i), w, 1e-5f, at(y, i), rstd); });
    }
    {
      const auto dy = sets(t_, kHidden), x = sets(t_, kHidden), dx = sets(t_, kHidden);
      const Tensor w = tensor(kHidden, 1), rstd = tensor(t_, 1, DType::f32);
      bytes_of("rms_norm_backward", row * 4 * kHidden,
               [&](int i) { backend_.rms_norm_backward(at(dy, i), at(x, i), rstd, w, at(dx, i)); });
    }
    {
      const int64_t cols = (kHeads + kKvHeads) * kHeadDim;
      const auto x = sets(t_, cols, DType::bf16, kKvHeads * kHeadDim);
      const Tensor positions = tensor(t_, 1, DType::i32), cosine = tensor(8192, kHeadDim / 2, DType::f32),
                   sine = tensor(8192, kHeadDim / 2, DType::f32);
      std::vector<int32_t> ids(static_cast<size_t>(t_));
      for (int64_t i = 0; i < t_; ++i) ids[static_cast<size_t>(i)] = static_cast<int32_t>(i % 8192);
      backend_.upload(ids.data(), positions);
      bytes_of("rope", row * 2 * static_cast<double>(cols),
               [&](int i) { backend_.rope(at(x, i), positions, cosine, sine, false); });
    }
    {
      const auto gu = sets(t_, 2 * kFfn), y = sets(t_, kFfn, DType::bf16, 64);
      bytes_of("swiglu", row * 3 * kFfn, [&](int i) { backend_.swiglu(at(gu, i), at(y, i)); });
    }
    {
      const auto dy = sets(t_, kFfn), gu = sets(t_, 2 * kFfn);
      bytes_of("swiglu_backward", row * 6 * kFfn,
               [&](int i) { backend_.swiglu_backward(at(dy, i), at(gu, i), at(gu, i), at(dy, i)); });
    }
    {
      const auto x = sets(t_, kHidden), y = sets(t_, kHidden);
      bytes_of("add", row * 3 * kHidden, [&](int i) { backend_.add(at(x, i), at(y, i)); });
    }
    {
      constexpr int64_t kChunk = 1024;
      const auto logits = sets(kChunk, kVocab, DType::f32);
      const Tensor labels = tensor(kChunk, 1, DType::i32), statistics = tensor(kChunk, 3, DType::f32);
      bytes_of(
          "fold_statistics", 4.0 * kChunk * kVocab,
          [&](int i) {
            backend_.start_statistics(statistics);
            backend_.fold_statistics(at(logits, i), labels, 0, kVocab, statistics);
          },
          true);
    }
    {
      constexpr int64_t kChunk = 1024;
      const auto logits = sets(kChunk, kVocab, DType::f32), d = sets(kChunk, kVocab);
      const Tensor labels = tensor(kChunk, 1, DType::i32), lse = tensor(kChunk, 1, DType::f32);
      bytes_of("cross_entropy_backward", 6.0 * kChunk * kVocab,
               [&](int i) { backend_.cross_entropy_backward(at(logits, i), labels, 0, kVocab, lse, at(d, i)); });
    }
    {
      constexpr int64_t kParameters = 41943040;  // rank 16 on all linears of 8B
      const Tensor g = tensor(kParameters, 1, DType::f32), p = tensor(kParameters, 1, DType::f32),
                   m = tensor(kParameters, 1, DType::f32), v = tensor(kParameters, 1, DType::f32),
                   factor = tensor(1, 1, DType::f32);
      bytes_of("adamw", 28.0 * kParameters, [&](int) { backend_.adamw({.learning_rate = 1e-4f}, factor, g, p, m, v); });
      const Tensor again = tensor(kParameters, 1, DType::f32), total = tensor(1, 1, DType::f64);
      bytes_of(
          "sum_squares", 4.0 * kParameters, [&](int) { backend_.sum_squares(again, total); }, true);
    }
  }

  static void tune(const std::function<void(int)>& run) {  // a product is tuned at its 200th use
    for (int i = 0; i < 210; ++i) run(i);
  }

  void products() {
    {
      const Tensor a = tensor(8192, 8192), b = tensor(8192, 8192), c = tensor(8192, 8192);
      const auto run = [&](int) { backend_.gemm(Trans::no, Trans::yes, 1, a, b, 0, c); };
      tune(run);
      const double us = median_us(run);
      say({{"bench", "gemm 8192x8192x8192"}, {"us", us}, {"tflops", 2.0 * 8192 * 8192 * 8192 / us * 1e-6}});
      release();
    }
    struct Group {
      const char* name;
      int64_t in, out, members;
    };
    double plain_us = 0, adapted_us = 0;
    const int64_t t = std::min(t_, kProductTokens);
    for (const Group& g : {Group{"qkv", kHidden, (kHeads + 2 * kKvHeads) * kHeadDim, 3},
                           {"o", kHeads * kHeadDim, kHidden, 1},
                           {"gate_up", kHidden, 2 * kFfn, 2},
                           {"down", kFfn, kHidden, 1}}) {
      const int64_t rank = g.members * kRank;
      const cuda::StripWeight w = weight(g.out, g.in, rank);
      const Tensor x = tensor(t, g.in, DType::bf16, w.x_pitch()), y = tensor(t, g.out, DType::bf16, w.dy_pitch());
      const Tensor dx = tensor(t, g.in), u = tensor(t, rank);
      const Tensor da = tensor(rank, g.in, DType::f32), db = tensor(g.out, kRank, DType::f32);
      const auto flops = 2.0 * static_cast<double>(t) * static_cast<double>(g.in) * static_cast<double>(g.out);
      const Tensor u_strip = x.columns(g.in, w.below().rows), v_strip = w.room_for_v(y), v = v_strip.columns(0, rank);
      const Tensor a = w.room_for_a();
      std::vector<LowRank> terms;
      std::vector<LowRankGradient> gradients;
      for (int64_t m = 0; m < g.members; ++m) {  // equal members: the same arithmetic as unequal ones
        const int64_t first = g.out / g.members * m, rows = m + 1 == g.members ? g.out - first : g.out / g.members;
        terms.push_back({.a = a.rows_from(m * kRank, kRank),
                         .b = w.room_for_b().rows_from(first, rows).columns(m * kRank, kRank),
                         .scale = 2,
                         .column = first});
        gradients.push_back({u.columns(m * kRank, kRank), terms.back().b, db.rows_from(first, rows), 2, first});
      }
      // What the terms add, alone; `bytes`: the wide operand.
      const auto part = [&](const char* what, double bytes, const std::function<void(int)>& run) {
        tune(run);
        const double us = median_us(run, true);
        say({{"bench", fmt::format("{}: {}", g.name, what)}, {"us", us}, {"gb_per_s", bytes / us * 1e-3}});
      };
      const auto u_of_x = [&](int) { backend_.gemm(Trans::no, Trans::yes, 2, x, w.below(), 0, u_strip); };
      const auto v_and_db = [&](int) { backend_.low_rank_backward(y, gradients, v_strip); };
      const auto da_of_v = [&](int) { backend_.gemm(Trans::yes, Trans::no, 1, v, x, 1, da); };
      const std::function<void(int)> works[] = {[&](int) { backend_.linear(x, w, {}, false, y); },
                                                [&](int) {
                                                  backend_.linear(x, w, {terms, u, {}}, false, y);
                                                },
                                                [&](int) { backend_.linear_dx(y, w, {}, {}, dx); },
                                                [&](int i) {
                                                  v_and_db(i);
                                                  da_of_v(i);
                                                  backend_.linear_dx(y, w, v, a, dx);
                                                }};
      for (const auto& work : works) tune(work);
      const std::vector<double> us = medians_us(works);
      const char* names[] = {"forward, frozen", "forward with its low-rank term", "dx, frozen",
                             "backward with its low-rank term"};
      for (size_t i = 0; i < us.size(); ++i) {
        (i % 2 == 0 ? plain_us : adapted_us) += us[i];
        say({{"bench", fmt::format("{} {}", g.name, names[i])}, {"us", us[i]}, {"tflops", flops / us[i] * 1e-6}});
      }
      const auto bytes = [&](Tensor t) { return static_cast<double>(t.bytes()); };
      part("u", bytes(x), u_of_x);
      part("v and dB", bytes(y), v_and_db);
      part("dA", bytes(x), da_of_v);
      release();
    }
    say({{"bench", "low-rank terms of a layer"},
         {"frozen_us", plain_us},
         {"with_us", adapted_us},
         {"overhead", adapted_us / plain_us - 1}});
  }

  void attention() {
    const int64_t tokens = std::min(t_, kMostAttentionTokens);  // own kernels' time grows with their square
    for (const auto& [name, documents] :
         {std::pair{"one document", int64_t{1}}, {"documents of 512", std::max<int64_t>(1, tokens / 512)}}) {
      const int64_t qkv = (kHeads + 2 * kKvHeads) * kHeadDim;
      constexpr int64_t kWidth = kHeads * kHeadDim;
      const Tensor x = tensor(tokens, qkv), dx = tensor(tokens, qkv, DType::bf16, qkv + 64);
      const Tensor o = tensor(tokens, kWidth, DType::bf16, kWidth + 64), d_o = tensor(tokens, kWidth);
      const Tensor lse = tensor(tokens, kHeads, DType::f32);
      const auto part = [](Tensor whole, int64_t first, int64_t heads) {
        return whole.columns(first * kHeadDim, heads * kHeadDim);
      };
      std::vector<Segment> segments;
      const int64_t length = tokens / documents;
      for (int64_t d = 0; d < documents; ++d)
        segments.push_back({.q0 = d * length, .nq = length, .k0 = d * length, .nk = length});
      const AttentionCall call{.q = part(x, 0, kHeads),
                               .kv = {.k = part(x, kHeads, kKvHeads), .v = part(x, kHeads + kKvHeads, kKvHeads)},
                               .segments = segments,
                               .shape = {.heads = kHeads, .kv_heads = kKvHeads, .head_dim = kHeadDim, .scale = 0.0884f},
                               .o = o,
                               .lse = lse};
      const AttentionGradients gradients{.d_o = d_o,
                                         .dq = part(dx, 0, kHeads),
                                         .dk = part(dx, kHeads, kKvHeads),
                                         .dv = part(dx, kHeads + kKvHeads, kKvHeads)};
      const double pairs =
          static_cast<double>(documents) * static_cast<double>(length) * static_cast<double>(length + 1) / 2;
      const double forward = 4.0 * pairs * kHeads * kHeadDim;
      for (const bool own : {false, true}) {
        Uploader uploader(backend_.stream());
        Traffic traffic;
        CudaAttention kernels(backend_.stream(), uploader, traffic, {.own_kernels_only = own});
        const double f = median_us([&](int) { kernels.forward(call); }),
                     b = median_us([&](int) { kernels.backward(call, gradients); });
        say({{"bench", fmt::format("attention, {}, {}", name, kernels.path())},
             {"forward_us", f},
             {"forward_tflops", forward / f * 1e-6},
             {"backward_us", b},
             {"backward_tflops", 2.5 * forward / b * 1e-6}});
      }
      release();
    }
  }

  int64_t t_;
  CudaBackend backend_;
  static constexpr int64_t kBusyBytes = int64_t{1} << 30;
  void* busy_ = nullptr;
  Tensor busy_sum_;
  cudaEvent_t begin_{}, end_{};
  std::vector<bf16> noise_;
  std::vector<std::pair<void*, int64_t>> blocks_;
  double copy_gb_per_s_ = 0;
};

}  // namespace
}  // namespace drover::cuda

int main(int argc, char** argv) {
  try {
    drover::cuda::Bench(argc > 1 ? std::atoll(argv[1]) : 8192).all();
  } catch (const std::exception& e) {
    std::fprintf(stderr, "gpu_bench: %s\n", e.what());
    return 70;
  }
}
