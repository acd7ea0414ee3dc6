#include "kernels/cuda/cudnn_attention.h"

#include <algorithm>
#include <array>
#include <map>
#include <vector>

#include "kernels/base/error.h"
#include "kernels/cuda/check.h"
#include "kernels/cuda/cudnn_graph.h"
#include "kernels/cuda/device_image.h"

namespace drover::cuda {

namespace {

constexpr int64_t kEqualUses = 200;    // of one length, before it gets a graph of its own: building one takes a second
constexpr size_t kMostLengths = 4096;  // whose uses are counted
constexpr int64_t kMostWorkspace = int64_t{4} << 30;  // cuDNN's deterministic backward keeps a T×T matrix per head

void check(cudnnStatus_t result, const char* call) {
  if (result != CUDNN_STATUS_SUCCESS)
    fail(Fault::internal, "internal error: {} failed: {}", call, cudnnGetErrorString(result));
}

}  // namespace

bool cudnn_fits(const AttentionCall& call, const AttentionGradients* gradients, bool deterministic) {
  if (packed_causal(call, gradients)) return true;
  return gradients == nullptr && (paged_shape(call) || (!deterministic && decode_shape(call)));
}

struct CudnnAttention::State {
  struct Plan {
    std::unique_ptr<CudnnGraph> graph;  // null: refused
    std::string why_not;
  };
  struct Tables {
    std::vector<char> image;
    DeviceImage device;
    int64_t used = 0;  // when, in calls
  };

  const Plan& plan(const GraphShape& shape) {
    const auto [at, fresh] = plans.try_emplace(shape);
    Plan& p = at->second;
    if (!fresh) return p;
    p.graph = CudnnGraph::build(shape, handle, p.why_not);
    if (p.graph && p.graph->workspace_bytes() > kMostWorkspace) {
      p.why_not =
          fmt::format("its workspace would be {:.1f} GiB", static_cast<double>(p.graph->workspace_bytes()) / (1 << 30));
      p.graph.reset();
    }
    return p;
  }
  // The graph of documents of one length, where that has come often enough and cuDNN takes it. Deterministic results do
  // not change at some step.
  std::optional<GraphShape> worth_a_graph(const AttentionCall& call) {
    if (deterministic) return {};
    const std::optional<GraphShape> shape = equal_shape(call);
    if (!shape) return {};
    if (equal_uses.size() > kMostLengths) equal_uses.clear();
    if (++equal_uses[*shape] <= kEqualUses || !plan(*shape).graph) return {};
    return shape;
  }
  char* tables_on_device(std::vector<char> image) {
    Tables* oldest = &tables[0];
    for (Tables& t : tables) {
      if (t.used > 0 && t.image == image) {
        t.used = calls;
        return t.device.device();
      }
      if (t.used < oldest->used) oldest = &t;
    }
    oldest->used = 0;  // not to be found if this fails half-way
    oldest->device.put(image, uploader, traffic);
    oldest->image = std::move(image);
    oldest->used = calls;
    return oldest->device.device();
  }
  void* workspace_of(int64_t bytes) {
    if (bytes > workspace_bytes) {
      cudaFree(workspace);  // waits for work that uses it
      traffic.allocated_bytes -= workspace_bytes;
      workspace = nullptr;
      workspace_bytes = 0;
      cuda::check(cudaMalloc(&workspace, static_cast<size_t>(bytes)), "cudaMalloc");
      workspace_bytes = bytes;
      ++traffic.allocations;
      traffic.allocated_bytes += bytes;
    }
    return workspace;
  }

  Uploader& uploader;
  Traffic& traffic;
  bool deterministic = false;
  cudnnHandle_t handle = nullptr;
  std::map<GraphShape, Plan> plans;
  std::map<GraphShape, int64_t> equal_uses;
  std::array<Tables, 32>
      tables;  // a forward and a backward of each part of the micro-batches that a pipeline has in flight
  void* workspace = nullptr;
  int64_t workspace_bytes = 0;
  int64_t calls = 0, rows_seen = 0;
  std::string why_not;
};

CudnnAttention::CudnnAttention(cudaStream_t stream, Uploader& uploader, Traffic& traffic, bool deterministic)
    : state_(new State{.uploader = uploader, .traffic = traffic, .deterministic = deterministic}) {
  check(cudnnCreate(&state_->handle), "cudnnCreate");
  check(cudnnSetStream(state_->handle, stream), "cudnnSetStream");
}

CudnnAttention::~CudnnAttention() {
  State& s = *state_;
  cudaFree(s.workspace);
  s.plans.clear();
  if (s.handle != nullptr) cudnnDestroy(s.handle);
}

bool CudnnAttention::run(const AttentionCall& call, const AttentionGradients* gradients) {
  State& s = *state_;
  ++s.calls;
  const bool packed = packed_causal(call, gradients);
  if (packed) s.rows_seen = std::max(s.rows_seen, row_bucket(call.segments.back().q0 + call.segments.back().nq));
  const auto equal = packed && gradients == nullptr ? s.worth_a_graph(call) : std::optional<GraphShape>{};
  const auto paged = packed ? std::optional<GraphShape>{} : paged_shape(call);
  const GraphShape shape = equal    ? *equal
                           : packed ? graph_shape(call, gradients, s.deterministic, s.rows_seen)
                           : paged  ? *paged
                                    : *decode_shape(call);
  const State::Plan& plan = s.plan(shape);
  if (!plan.graph) {
    s.why_not = plan.why_not;
    return false;
  }
  std::array<void*, GraphShape::kMembers> data{};
  // Documents say in their tables where they begin; where there is no such table, the first one's row is where all
  // begin.
  const bool by_tables = (packed && !shape.equal) || shape.paged;
  const int64_t query = by_tables ? 0 : call.segments.front().q0, key = by_tables ? 0 : call.segments.front().k0;
  data[GraphShape::kQ] = call.q.rows_from(query, 1).data;
  data[GraphShape::kK] = call.kv.k.rows_from(key, 1).data;
  data[GraphShape::kV] = call.kv.v.rows_from(key, 1).data;
  data[GraphShape::kO] = call.o.rows_from(query, 1).data;
  data[GraphShape::kLse] = call.lse.rows_from(query, 1).data;
  if (gradients != nullptr) {
    data[GraphShape::kDO] = gradients->d_o.data;
    data[GraphShape::kDQ] = gradients->dq.data;
    data[GraphShape::kDK] = gradients->dk.data;
    data[GraphShape::kDV] = gradients->dv.data;
  }
  char* tables = shape.equal ? nullptr : s.tables_on_device(document_tables(call, shape));
  plan.graph->run(s.handle, data, tables, s.workspace_of(plan.graph->workspace_bytes()));
  return true;
}

const std::string& CudnnAttention::why_not() const { return state_->why_not; }

int64_t CudnnAttention::workspace_bytes() const {
  int64_t bytes = state_->workspace_bytes;
  for (const State::Tables& t : state_->tables) bytes += t.device.capacity();
  return bytes;
}

}  // namespace drover::cuda
