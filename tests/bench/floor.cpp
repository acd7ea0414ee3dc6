// The floor of a training step: the time that the products of its frozen matrices take alone, forward and backward,
// with nothing between them. Each product is timed in three layouts that oneDNN offers, and the fastest counts: f32
// with weights as files have them, f32 with weights packed once, bf16 with weights packed once. Next to it the rates of
// a product of 2048³, of a large copy and of reading. One line of JSON. Usage: bench_floor THREADS [MODEL_DIR TOKENS],
// the rates alone without a model
#include <omp.h>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <functional>
#include <limits>
#include <nlohmann/json.hpp>
#include <oneapi/dnnl/dnnl.hpp>
#include <vector>

namespace {

using dnnl::memory;

constexpr int kRounds = 5;
constexpr int64_t kHeadRows = 512;  // of logits at a time, as a step computes them

double seconds_of(const std::function<void()>& work) {
  double least = std::numeric_limits<double>::max();
  for (int round = 0; round < kRounds; ++round) {
    const auto begin = std::chrono::steady_clock::now();
    work();
    least = std::min(least, std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count());
  }
  return least;
}

class Products {
 public:
  // y (m,n) = x (m,k) · w, with w (k,n) as it lies in a file of (n,k), or transposed, for the backward.
  double seconds(int64_t m, int64_t n, int64_t k, bool backward) {
    using Type = memory::data_type;
    using Tag = memory::format_tag;
    const Tag file = backward ? Tag::ab : Tag::ba;
    double least = one(m, n, k, Type::f32, file);
    least = std::min(least, one(m, n, k, Type::f32, Tag::any));
    if (multiplies_bf16()) least = std::min(least, one(m, n, k, Type::bf16, Tag::any));
    return least;
  }

 private:
  static bool multiplies_bf16() {
    const auto bits = static_cast<unsigned>(dnnl::cpu_isa::avx512_core_bf16);
    return (static_cast<unsigned>(dnnl::get_effective_cpu_isa()) & bits) == bits;
  }

  double one(int64_t m, int64_t n, int64_t k, memory::data_type type, memory::format_tag weights) {
    const memory::desc x({m, k}, type, memory::format_tag::ab), w({k, n}, type, weights),
        y({m, n}, type, memory::format_tag::ab);
    const dnnl::matmul::primitive_desc description({x, w, y}, engine_);
    const dnnl::matmul product(description);
    memory xs(x, engine_), ws(description.weights_desc(), engine_), ys(y, engine_);
    for (const memory& each : {xs, ws, ys}) {
      auto* bytes = static_cast<char*>(each.get_data_handle());
      std::fill_n(bytes, each.get_desc().get_size(), char{0x3c});  // small numbers in both types
    }
    return seconds_of([&] {
      product.execute(stream_, {{DNNL_ARG_SRC, xs}, {DNNL_ARG_WEIGHTS, ws}, {DNNL_ARG_DST, ys}});
      stream_.wait();
    });
  }

  dnnl::engine engine_{dnnl::engine::kind::cpu, 0};
  dnnl::stream stream_{engine_};
};

constexpr int64_t kLargeBytes = int64_t{256} << 20;

// Bytes read and written a second.
double copy_rate(int threads) {
  std::vector<char> from(kLargeBytes, 1), to(kLargeBytes, 2);
  const int64_t part = kLargeBytes / threads;
  const double seconds = seconds_of([&] {
#pragma omp parallel for num_threads(threads) schedule(static)
    for (int t = 0; t < threads; ++t) std::copy_n(from.data() + t * part, part, to.data() + t * part);
  });
  return 2.0 * static_cast<double>(part * threads) / seconds;
}

// Bytes read a second; a thread reads four places at once, as products for one row do, which share no set of a cache.
double read_rate(int threads) {
  constexpr int64_t kStreams = 4;
  const std::vector<int64_t> numbers(kLargeBytes / sizeof(int64_t), 1);
  const int64_t part = static_cast<int64_t>(numbers.size()) / (threads * kStreams) - 328;  // 41 lines
  int64_t sum = 0;
  const double seconds = seconds_of([&] {
#pragma omp parallel for num_threads(threads) schedule(static) reduction(+ : sum)
    for (int t = 0; t < threads; ++t) {
      const int64_t* from = numbers.data() + t * kStreams * part;
      for (int64_t i = 0; i < part; ++i) sum += (from[i] + from[part + i]) + (from[2 * part + i] + from[3 * part + i]);
    }
  });
  if (sum != kRounds * part * threads * kStreams) std::abort();
  return static_cast<double>(part * threads * kStreams) * sizeof(int64_t) / seconds;
}

struct Sum {
  double seconds = 0, flops = 0;
  void add(double times, double each, int64_t m, int64_t n, int64_t k) {
    seconds += times * each;
    flops += times * 2 * static_cast<double>(m) * static_cast<double>(n) * static_cast<double>(k);
  }
};

// What a step's products cost.
Sum products_of(const nlohmann::json& config, int64_t tokens) {
  const int64_t hidden = config.at("hidden_size"), ffn = config.at("intermediate_size"),
                heads = config.at("num_attention_heads"), kv_heads = config.at("num_key_value_heads"),
                head_dim = config.value("head_dim", hidden / heads), vocab = config.at("vocab_size");
  const double layers = config.at("num_hidden_layers");
  Products products;
  Sum sum;
  // (outputs, inputs) of a layer's linears as they are multiplied: q, k and v at once, gate and up at once.
  const int64_t qkv = (heads + 2 * kv_heads) * head_dim;
  const int64_t linears[][2] = {{qkv, hidden}, {hidden, heads * head_dim}, {2 * ffn, hidden}, {hidden, ffn}};
  for (const auto& [out, in_features] : linears) {
    sum.add(layers, products.seconds(tokens, out, in_features, false), tokens, out, in_features);
    // Nothing lies below the first layer that needs its gradient.
    const double backward = layers - (out == qkv && in_features == hidden ? 1 : 0);
    sum.add(backward, products.seconds(tokens, in_features, out, true), tokens, in_features, out);
  }
  const int64_t rows = std::min(tokens, kHeadRows);
  const double chunks = static_cast<double>(tokens) / static_cast<double>(rows);
  sum.add(chunks, products.seconds(rows, vocab, hidden, false), rows, vocab, hidden);
  sum.add(chunks, products.seconds(rows, hidden, vocab, true), rows, hidden, vocab);
  return sum;
}

}  // namespace

int main(int argc, char** argv) {
  if (argc != 2 && argc != 4) return std::fputs("usage: bench_floor THREADS [MODEL_DIR TOKENS]\n", stderr), 64;
  const int threads = std::max(std::atoi(argv[1]), 1);
  omp_set_num_threads(threads);
  nlohmann::ordered_json line;
  if (argc == 4) {
    std::ifstream in(std::string(argv[2]) + "/config.json");
    const int64_t tokens = std::atoll(argv[3]);
    const Sum sum = products_of(nlohmann::json::parse(in), tokens);
    line = {{"tokens", tokens},
            {"seconds", sum.seconds},
            {"gflops", sum.flops * 1e-9},
            {"rate", sum.flops / sum.seconds * 1e-9}};
  }
  constexpr int64_t kCube = 2048;
  line["best_2048"] = 2.0 * kCube * kCube * kCube / Products().seconds(kCube, kCube, kCube, false) * 1e-9;
  line["copy"] = copy_rate(threads) * 1e-9;
  line["read"] = read_rate(threads) * 1e-9;
  std::printf("%s\n", line.dump().c_str());
}
