#include "kernels/cuda/attention_plans.h"

#include <algorithm>
#include <utility>

#include "kernels/base/log.h"
#include "kernels/cuda/attention_kernels.h"
#include "kernels/cuda/attention_segments.h"
#include "kernels/cuda/cuda_backend.h"
#include "kernels/cuda/cudnn_attention.h"
#include "kernels/cuda/decode_workspace.h"

namespace drover::cuda {

struct CudaAttention::State {
  State(cudaStream_t on, Uploader& uploads, Traffic& counted, AttentionSettings given)
      : stream(on),
        uploader(uploads),
        traffic(counted),
        settings(std::move(given)),
        segments(uploads, counted),
        parts(on, counted) {
    if (!settings.log) settings.log = [](const std::string& line) { log::write(line); };
  }
  // Whether cuDNN did it.
  bool by_cudnn(const AttentionCall& call, const AttentionGradients* gradients) {
    if (settings.own_kernels_only || !cudnn_fits(call, gradients, settings.deterministic)) return false;
    if (!cudnn) cudnn = std::make_unique<CudnnAttention>(stream, uploader, traffic, settings.deterministic);
    if (cudnn->run(call, gradients)) {
      ++cudnn_calls;
      return true;
    }
    if (!std::exchange(refused, true))
      settings.log("cuDNN refuses an attention, own kernels take it: " + cudnn->why_not());
    return false;
  }
  // Gives cuDNN the chunks of prompts, as many as stand next to each other at a time, and returns the other segments.
  std::vector<Segment> without_chunks(AttentionCall call) {
    const std::span<const Segment> all = call.segments;
    std::vector<Segment> others;
    for (size_t begin = 0; begin < all.size();) {
      size_t end = begin;
      while (end < all.size() && all[end].nq > 1 && all[end].block_table != nullptr) ++end;
      call.segments = all.subspan(begin, end - begin);
      const bool taken = end > begin && by_cudnn(call, nullptr);
      if (!taken) {
        end = std::max(end, begin + 1);
        others.insert(others.end(), all.begin() + static_cast<std::ptrdiff_t>(begin),
                      all.begin() + static_cast<std::ptrdiff_t>(end));
      }
      begin = end;
    }
    return others;
  }
  const AttentionTasks& tasks_of_own(const AttentionCall& call) {
    ++own_calls;
    return segments.on_device(call.segments, call.kv.block_size);
  }

  void decode(const AttentionCall& call, const AttentionTasks& tasks) {
    if (tasks.single_rows == 0) return;
    part_floats = std::max(part_floats, call.shape.heads * (call.shape.head_dim + 2));
    row_chunks = std::max(row_chunks, decode_chunks(call.shape));
    attention_decode(stream, call, tasks, tasks.decode_blocks > 1 ? parts_of(tasks) : DecodeParts{});
  }
  DecodeParts parts_of(const AttentionTasks& tasks) {
    return parts.with(tasks.decode_parts * part_floats, tasks.single_rows * row_chunks);
  }

  cudaStream_t stream;
  Uploader& uploader;
  Traffic& traffic;
  AttentionSettings settings;
  AttentionSegments segments;
  DecodeWorkspace parts;
  int64_t part_floats = 0, row_chunks = 0;  // the most of all calls so far
  const AttentionTasks* staged = nullptr;
  std::unique_ptr<CudnnAttention> cudnn;  // made when there is something for it
  bool refused = false;
  int64_t cudnn_calls = 0, own_calls = 0;
};

namespace {

void require_attention(const AttentionCall& call) {
  const AttentionShape& shape = call.shape;
  require(shape.head_dim > 0 && shape.head_dim <= kMostHeadDim, "attention's heads have at most 256 elements");
}

}  // namespace

CudaAttention::CudaAttention(cudaStream_t stream, Uploader& uploader, Traffic& traffic, AttentionSettings settings)
    : state_(std::make_unique<State>(stream, uploader, traffic, std::move(settings))) {}
CudaAttention::~CudaAttention() = default;

void CudaAttention::forward(const AttentionCall& call) {
  require_attention(call);
  State& s = *state_;
  if (s.staged != nullptr) {
    require(s.staged->single_rows == static_cast<int64_t>(call.segments.size()), "a replayed pass has the staged rows");
    ++s.own_calls;
    return s.decode(call, *s.staged);
  }
  if (s.by_cudnn(call, nullptr)) return;
  const std::vector<Segment> others = s.without_chunks(call);
  if (others.empty() && !call.segments.empty()) return;
  AttentionCall rest = call;
  rest.segments = others;
  const AttentionTasks& tasks = s.tasks_of_own(rest);
  attention_tiles(s.stream, rest, tasks);
  s.decode(rest, tasks);
}

int64_t CudaAttention::stage(std::span<const Segment> rows, int64_t block_size) {
  State& s = *state_;
  s.staged = &s.segments.stage(rows, block_size);
  if (s.staged->decode_blocks > 1 && s.part_floats > 0) s.parts_of(*s.staged);  // nothing may grow in a captured pass
  return s.staged->decode_blocks;
}

void CudaAttention::unstage() { state_->staged = nullptr; }

void CudaAttention::backward(const AttentionCall& call, const AttentionGradients& gradients) {
  require_attention(call);
  State& s = *state_;
  if (s.by_cudnn(call, &gradients)) return;
  attention_backward(s.stream, call, gradients, s.tasks_of_own(call));
}

int64_t CudaAttention::workspace_bytes() const {
  return state_->segments.bytes() + state_->parts.bytes() + (state_->cudnn ? state_->cudnn->workspace_bytes() : 0);
}

std::string CudaAttention::path() const {
  const auto taken = [](const char* name, int64_t calls) {
    return fmt::format("{} {} {}", name, calls, calls == 1 ? "time" : "times");
  };
  const State& s = *state_;
  if (s.cudnn_calls == 0 && s.own_calls == 0) return "not used";
  if (s.own_calls == 0) return taken("cuDNN", s.cudnn_calls);
  if (s.cudnn_calls == 0) return taken("own kernels", s.own_calls);
  return taken("cuDNN", s.cudnn_calls) + ", " + taken("own kernels", s.own_calls);
}

void CudaBackend::do_attention(Tensor q, const KvView& kv, std::span<const Segment> segments,
                               const AttentionShape& shape, Tensor o, Tensor lse) {
  attention_->forward({q, kv, segments, shape, o, lse});
}

void CudaBackend::do_attention_backward(Tensor q, const KvView& kv, std::span<const Segment> segments,
                                        const AttentionShape& shape, Tensor o, Tensor lse, Tensor d_o, Tensor dq,
                                        Tensor dk, Tensor dv) {
  attention_->backward({q, kv, segments, shape, o, lse}, {d_o, dq, dk, dv});
}

}  // namespace drover::cuda
