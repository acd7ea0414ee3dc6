// Asks cuDNN, without a GPU, whether it has an engine on an H100 for every attention graph that training and decoding
// build: Llama 3.1's shapes, full-length and packed batches up to 131 072 rows, the strides that the model's buffers
// have; one to eight sequences over caches up to 131 072 rows, and prompts' chunks over caches in blocks. Some of them
// are compiled, which tells their workspace. Exit 1 when one is refused. Usage: cudnn_support DEVICE_JSON (libcuda.so.1
// must be found; a stand-in does: stand_in_driver.cpp)
#include <cstdio>
#include <fstream>
#include <iterator>
#include <span>
#include <vector>

#include "kernels/base/error.h"
#include "kernels/cuda/cudnn_graph.h"

namespace drover::cuda {

namespace {

struct Model {
  const char* name;
  int64_t heads, kv_heads, head_dim;
  int64_t most_rows;
};
struct Batch {
  int64_t documents, longest;
  bool compiled = false;
};

// The call that the model makes: q, k and v side by side with room for the low-rank columns, o likewise.
struct Problem {
  AttentionCall call;
  AttentionGradients gradients;
  std::vector<Segment> segments;

  Problem(const Model& m, const Batch& b, int64_t strip) {
    const int64_t q = m.heads * m.head_dim, kv = m.kv_heads * m.head_dim, rows = b.documents * b.longest;
    const auto tensor = [&](int64_t cols, int64_t pitch, DType type = DType::bf16) {
      return Tensor{nullptr, rows, cols, pitch, type};
    };
    const int64_t qkv = q + 2 * kv + strip;
    for (int64_t i = 0; i < b.documents; ++i)
      segments.push_back({.q0 = i * b.longest, .nq = b.longest, .k0 = i * b.longest, .nk = b.longest});
    call = {.q = tensor(q, qkv),
            .kv = {.k = tensor(kv, qkv), .v = tensor(kv, qkv)},
            .segments = segments,
            .shape = {.heads = m.heads, .kv_heads = m.kv_heads, .head_dim = m.head_dim, .scale = 0.125f},
            .o = tensor(q, q + strip),
            .lse = tensor(m.heads, m.heads, DType::f32)};
    gradients = {.d_o = tensor(q, q), .dq = tensor(q, qkv), .dk = tensor(kv, qkv), .dv = tensor(kv, qkv)};
  }
};

// The call that a decoder makes: a query row of each sequence over its cache.
struct Decoding {
  AttentionCall call;
  std::vector<Segment> segments;

  Decoding(const Model& m, int64_t sequences, int64_t keys) {
    const int64_t q = m.heads * m.head_dim, kv = m.kv_heads * m.head_dim, capacity = keys + 64;
    const auto tensor = [](int64_t rows, int64_t cols, int64_t pitch, DType type = DType::bf16) {
      return Tensor{nullptr, rows, cols, pitch, type};
    };
    for (int64_t i = 0; i < sequences; ++i)
      segments.push_back({.q0 = i, .nq = 1, .k0 = i * capacity, .nk = keys, .offset = keys - 1});
    const Tensor cache = tensor(sequences * capacity, kv, kv);
    call = {.q = tensor(sequences, q, q + 2 * kv),
            .kv = {.k = cache, .v = cache},
            .segments = segments,
            .shape = {.heads = m.heads, .kv_heads = m.kv_heads, .head_dim = m.head_dim, .scale = 0.125f},
            .o = tensor(sequences, q, q + 64),
            .lse = tensor(sequences, m.heads, m.heads, DType::f32)};
  }
};

// The call of a pass that takes the next rows of some prompts, over a cache of 16-row blocks.
struct Chunks {
  AttentionCall call;
  std::vector<Segment> segments;
  std::vector<int32_t> table;

  Chunks(const Model& m, int64_t prompts, int64_t rows, int64_t keys) : table(static_cast<size_t>(keys / 16 + 1)) {
    const int64_t q = m.heads * m.head_dim, kv = m.kv_heads * m.head_dim;
    const auto tensor = [](int64_t count, int64_t cols, int64_t pitch, DType type = DType::bf16) {
      return Tensor{nullptr, count, cols, pitch, type};
    };
    for (int64_t i = 0; i < prompts; ++i) {
      segments.push_back({.q0 = i * rows, .nq = rows, .nk = keys, .offset = keys - rows, .block_table = table.data()});
    }
    const Tensor cache = tensor(16 * 20000, kv, kv);
    call = {.q = tensor(prompts * rows, q, q + 2 * kv),
            .kv = {.k = cache, .v = cache, .block_size = 16},
            .segments = segments,
            .shape = {.heads = m.heads, .kv_heads = m.kv_heads, .head_dim = m.head_dim, .scale = 0.125f},
            .o = tensor(prompts * rows, q, q + 64),
            .lse = tensor(prompts * rows, m.heads, m.heads, DType::f32)};
  }
};

// How many of the graphs of chunks are refused.
int refused_chunks(std::span<const Model> models, const std::string& device, int& asked) {
  int refused = 0;
  for (const Model& m : models) {
    for (const int64_t prompts : {1, 3}) {
      for (const int64_t rows : {64, 500}) {
        for (const int64_t keys : {int64_t{1000}, int64_t{16000}, m.most_rows}) {
          const Chunks c(m, prompts, rows, keys);
          std::string why_not;
          const auto shape = paged_shape(c.call);
          const bool compile = prompts == 3 && keys == 16000;
          const auto graph = shape ? CudnnGraph::build_for(*shape, device, compile, why_not) : nullptr;
          fmt::print("{:<20} {:>3} × {:<3} of {:<6} chunks   {}\n", m.name, prompts, rows, keys,
                     !graph    ? "REFUSED: " + (shape ? why_not : "not taken as chunks")
                     : compile ? fmt::format("compiled, workspace {:.1f} MiB",
                                             static_cast<double>(graph->workspace_bytes()) / (1 << 20))
                               : "supported");
          refused += !graph;
          ++asked;
        }
      }
    }
  }
  return refused;
}

}  // namespace

int check_support(const std::string& device) {
  const Model models[] = {{"SmolLM2-135M", 9, 3, 64, 8192},         {"Llama 3.2 1B", 32, 8, 64, 131072},
                          {"Llama 3.1 8B", 32, 8, 128, 131072},     {"Llama 3.1 70B", 64, 8, 128, 131072},
                          {"Llama 3.1 70B tp8", 8, 1, 128, 131072}, {"Llama 3.1 405B tp8", 16, 1, 128, 131072}};
  const Batch batches[] = {{1, 64},         {1, 512},  {4, 512},   {1, 4096, true}, {4, 4096},
                           {64, 128, true}, {1, 8192}, {1, 32768}, {1, 131072}};
  int refused = 0, asked = 0;
  for (const Model& m : models) {
    for (const Batch& b : batches) {
      const int64_t rows = b.documents * b.longest;
      if (rows > m.most_rows) continue;
      for (const int64_t strip : {int64_t{0}, int64_t{64}}) {
        const Problem p(m, b, strip);
        for (const AttentionGradients* gradients : {static_cast<const AttentionGradients*>(nullptr), &p.gradients}) {
          const char* direction = gradients ? "backward" : "forward";
          if (!packed_causal(p.call, gradients)) {
            fmt::print("REFUSED {} {}: not taken as packed and causal\n", m.name, direction);
            ++refused;
            continue;
          }
          std::vector<GraphShape> shapes{graph_shape(p.call, gradients, false, row_bucket(rows))};
          if (gradients == nullptr) shapes.push_back(*equal_shape(p.call));
          for (const GraphShape& shape : shapes) {
            std::string why_not;
            const bool compile = b.compiled && strip > 0;
            const auto graph = CudnnGraph::build_for(shape, device, compile, why_not);
            fmt::print("{:<20} {:>3} × {:<6} strip {:>2} {:<6} {:<8} {}\n", m.name, b.documents, b.longest, strip,
                       shape.equal ? "equal" : "ragged", direction,
                       !graph    ? "REFUSED: " + why_not
                       : compile ? fmt::format("compiled, workspace {:.1f} MiB",
                                               static_cast<double>(graph->workspace_bytes()) / (1 << 20))
                                 : "supported");
            refused += !graph;
            ++asked;
            std::fflush(stdout);
          }
        }
      }
    }
  }
  for (const Model& m : models) {
    for (const int64_t sequences : {1, 3, 8}) {
      for (const int64_t keys : {int64_t{1024}, int64_t{5000}, int64_t{131072}}) {
        if (keys > m.most_rows) continue;
        const Decoding d(m, sequences, keys);
        std::string why_not;
        const auto shape = decode_shape(d.call);
        const bool compile = sequences == 3 && keys == 5000;
        const auto graph = shape ? CudnnGraph::build_for(*shape, device, compile, why_not) : nullptr;
        fmt::print("{:<20} {:>3} × {:<6} decoding          {}\n", m.name, sequences, keys,
                   !graph    ? "REFUSED: " + (shape ? why_not : "not taken as decoding")
                   : compile ? fmt::format("compiled, workspace {:.1f} MiB",
                                           static_cast<double>(graph->workspace_bytes()) / (1 << 20))
                             : "supported");
        refused += !graph;
        ++asked;
      }
    }
  }
  refused += refused_chunks(models, device, asked);
  fmt::print("cuDNN {}: {} graphs asked for, {} refused\n", cudnnGetVersion(), asked, refused);
  return refused > 0;
}

}  // namespace drover::cuda

int main(int argc, char** argv) {
  if (argc != 2) return std::fprintf(stderr, "usage: cudnn_support DEVICE_JSON\n"), 64;
  std::ifstream file(argv[1], std::ios::binary);
  const std::string device{std::istreambuf_iterator<char>(file), {}};
  if (device.empty()) return std::fprintf(stderr, "%s cannot be read\n", argv[1]), 66;
  return drover::cuda::check_support(device);
}
