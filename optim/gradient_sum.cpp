#include "optim/gradient_sum.h"

#include <bit>
#include <cstring>

#include "kernels/base/error.h"

namespace drover {

namespace {

// A range of m consecutive leaves is covered by at most this many aligned nodes, plus one leaf that waits to be merged.
int64_t most_nodes(int64_t m) { return m == 0 ? 1 : 2 * std::bit_width(static_cast<uint64_t>(m)) + 1; }

}  // namespace

GradientSum::GradientSum(Tensor gradients, int64_t whole_size, Mesh& mesh, Backend& backend, Arena& arena,
                         const Accumulation& accumulation)
    : gradients_(gradients),
      whole_(gradients.rows_from(0, whole_size)),
      mesh_(mesh),
      backend_(backend),
      deterministic_(accumulation.deterministic) {
  if (!deterministic_) return;
  const int64_t count = most_nodes(accumulation.local_micro_batches), n = gradients.rows;
  exchanged_ = arena.tensor(count * n * mesh.dp().size(), 1, DType::f32);
  outgoing_ = exchanged_.rows_from(count * n * mesh.dp().rank(), count * n);
  for (int64_t i = 0; i < count; ++i) local_buffers_.push_back(outgoing_.rows_from(i * n, n));
}

void GradientSum::start() {
  backend_.zero(gradients_);
  nodes_.clear();
}

void GradientSum::merge_siblings(Backend& backend, std::vector<Node>& nodes) {
  while (nodes.size() >= 2) {
    Node& left = nodes[nodes.size() - 2];
    const Node& right = nodes.back();
    if (left.level != right.level || left.index % 2 != 0 || right.index != left.index + 1) return;
    backend.add(right.sum, left.sum);
    left.level += 1;
    left.index /= 2;
    nodes.pop_back();
  }
}

void GradientSum::add_micro_batch(int64_t index) {
  if (!deterministic_) return;
  Tensor buffer = local_buffers_[nodes_.size()];
  backend_.copy(gradients_, buffer);
  backend_.zero(gradients_);
  nodes_.push_back({0, index, buffer});
  merge_siblings(backend_, nodes_);
}

void GradientSum::finish() {
  if (!deterministic_) {
    mesh_.dp().all_reduce(gradients_);
  } else {
    std::string mine;
    for (const Node& node : nodes_) mine += fmt::format("{} {};", node.level, node.index);
    const std::vector<std::string> all = mesh_.dp().gather_strings(mine);
    mesh_.dp().all_gather(outgoing_, exchanged_);
    const int64_t n = gradients_.rows, stride = static_cast<int64_t>(local_buffers_.size());
    std::vector<Node> merged;
    for (size_t rank = 0; rank < all.size(); ++rank) {
      const char* at = all[rank].c_str();
      for (int64_t slot = 0; *at != '\0'; ++slot) {
        char* end = nullptr;
        const int level = static_cast<int>(std::strtol(at, &end, 10));
        const int64_t index = std::strtoll(end, &end, 10);
        at = end + 1;
        merged.push_back({level, index, exchanged_.rows_from((static_cast<int64_t>(rank) * stride + slot) * n, n)});
        merge_siblings(backend_, merged);
      }
    }
    while (merged.size() >= 2) {
      backend_.add(merged.back().sum, merged[merged.size() - 2].sum);
      merged.pop_back();
    }
    if (merged.empty()) {
      backend_.zero(gradients_);
    } else {
      backend_.copy(merged.front().sum, gradients_);
    }
  }
  mesh_.tp().all_reduce(whole_);
}

}  // namespace drover
