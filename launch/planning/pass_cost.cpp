#include "launch/planning/pass_cost.h"

#include <algorithm>

#include "kernels/base/error.h"

namespace drover {

namespace {

double bytes_a_weight(WeightFormat format) {
  require(format != WeightFormat::as_is, "a plan of serving states its weights' format");
  if (format == WeightFormat::bf16) return 2;
  if (format == WeightFormat::fp8) return 1 + 4.0 / (128 * 128);  // and a scale of a block
  return (4 + 8.0 / 64 + 32.0 / (64 * 256)) / 8;                  // codes, scales, and scales of scales
}

double linear_weights(const ModelConfig& c) {  // of all blocks
  const int64_t attention = c.hidden * c.head_dim * (2 * c.heads + 2 * c.kv_heads);
  return static_cast<double>(c.layers * (attention + 3 * c.hidden * c.ffn));
}

double head_weights(const ModelConfig& c) { return static_cast<double>(c.vocab * c.hidden); }

std::string why_not(const ModelOnGpus& m) {
  const ModelConfig& c = m.config;
  if (c.kv_heads % m.tp != 0) {
    return fmt::format("--tp {} does not divide the {} key/value heads of the model; every GPU holds whole heads", m.tp,
                       c.kv_heads);
  }
  if (c.ffn % m.tp != 0) return fmt::format("--tp {} does not divide intermediate_size {}", m.tp, c.ffn);
  if (m.tp > m.machine.gpus_a_node) {
    return fmt::format("--tp {} is more than the {} GPUs of a node of {}; tensor parallelism stays inside a node", m.tp,
                       m.machine.gpus_a_node, m.machine.name);
  }
  return {};
}

}  // namespace

ServedBytes bytes_of(const ModelOnGpus& m) {
  if (const std::string wrong = why_not(m); !wrong.empty()) throw Error(Fault::usage, wrong);
  const ModelConfig& c = m.config;
  const auto tp = static_cast<double>(m.tp);
  ServedBytes bytes;
  bytes.weights = (linear_weights(c) * bytes_a_weight(m.weights) + head_weights(c) * 2 * (c.tied_head ? 1 : 2)) / tp;
  bytes.kv_of_a_token = static_cast<double>(2 * c.layers * c.kv_heads * c.head_dim * 2) / tp;
  const double free = m.machine.memory_bytes * kMemoryShare - bytes.weights;
  if (free < bytes.kv_of_a_token) {
    fail(Fault::usage,
         "the weights take {:.1f} GB of each GPU, and of the {:.1f} GB of one {} {:.0f} % can be used; take more GPUs "
         "with --tp, or --weights fp8 or nf4",
         bytes.weights / 1e9, m.machine.memory_bytes / 1e9, m.machine.name, kMemoryShare * 100);
  }
  bytes.room_tokens = static_cast<int64_t>(free / bytes.kv_of_a_token);
  return bytes;
}

PassSeconds roofline(const ModelOnGpus& m) {
  const ModelConfig& c = m.config;
  const auto tp = static_cast<double>(m.tp), layers = static_cast<double>(c.layers);
  const double rate = m.machine.bf16_linear_flops_per_second, bandwidth = m.machine.memory_bytes_per_second;
  const double linears = linear_weights(c) / tp, linears_read = linears * bytes_a_weight(m.weights) / bandwidth;
  const double head = head_weights(c) / tp, head_read = head * 2 / bandwidth;
  const double look =
      4 * layers * static_cast<double>(c.heads * c.head_dim) / tp / m.machine.attention_forward_flops_per_second;
  const double look_read = static_cast<double>(2 * c.layers * c.kv_heads * c.head_dim * 2) / tp / bandwidth;
  const double row_sum = 2 * (tp - 1) / tp * static_cast<double>(c.hidden) * 2 / m.machine.node_link_bytes_per_second;
  const double sums = m.tp > 1 ? 2 * layers : 0, latency = m.machine.node_link_seconds;
  return [=](const PassShape& pass) {
    const auto rows = static_cast<double>(pass.prompt_tokens + pass.decode_rows);
    const auto choosing = static_cast<double>(pass.decode_rows + (pass.prompt_tokens > 0 ? 1 : 0));
    return std::max(2 * linears * rows / rate, linears_read) + std::max(2 * head * choosing / rate, head_read) +
           static_cast<double>(pass.context_tokens) * std::max(look, look_read) +
           static_cast<double>(pass.prompt_context) * look + sums * (latency + rows * row_sum);
  };
}

}  // namespace drover
