// How attention's work is cut into tasks of threads, and which instruction set does it.
#include <algorithm>
#include <utility>

#include "kernels/cpu/attention_common.h"
#include "kernels/cpu/attention_kernels.h"
#include "kernels/cpu/cpu_backend.h"
#include "kernels/cpu/isa.h"

namespace drover::cpu {

namespace {

constexpr int64_t kFewQueries = 4;
constexpr int64_t kBroughtBytes = int64_t{256} << 10;  // of a tile's keys and values, which have to stay in a cache
constexpr int64_t kTasksOfThread = 4;  // with fewer, tasks are cut into pieces, so that no thread waits long

// bf16's kernel, f32's kernel
template <typename Call, typename Task>
struct Kernels {
  AttentionKernel<Call, Task> bf16, f32;
  AttentionKernel<Call, Task> of(DType dtype) const { return dtype == DType::bf16 ? bf16 : f32; }
};

Kernels<AttentionForward, ForwardTask> forward_kernels() {
  switch (isa()) {
    case Isa::avx2: return {avx2::attention_forward<bf16>, avx2::attention_forward<float>};
    case Isa::avx512: return {avx512::attention_forward<bf16>, avx512::attention_forward<float>};
    case Isa::avx512_bf16: return {avx512_bf16::attention_forward, avx512::attention_forward<float>};
    default: return {amx::attention_forward, avx512::attention_forward<float>};
  }
}
Kernels<AttentionBackward, BackwardTask> backward_kernels() {
  switch (isa()) {
    case Isa::avx2: return {avx2::attention_backward<bf16>, avx2::attention_backward<float>};
    case Isa::avx512: return {avx512::attention_backward<bf16>, avx512::attention_backward<float>};
    case Isa::avx512_bf16: return {avx512_bf16::attention_backward, avx512::attention_backward<float>};
    default: return {amx::attention_backward, avx512::attention_backward<float>};
  }
}

template <typename Call, typename Task>
void run(const std::vector<Task>& tasks, AttentionKernel<Call, Task> kernel, const Call& call, int threads) {
#pragma omp parallel for num_threads(threads) schedule(dynamic)
  for (size_t i = 0; i < tasks.size(); ++i) kernel(call, tasks[i]);
}

// Few queries multiply little by each key: one task reads the keys of many KV heads, which lie side by side.
std::vector<ForwardTask> forward_tasks(std::span<const Segment> segments, const AttentionShape& shape, DType dtype) {
  const int64_t kv_heads = shape.kv_heads;
  const int64_t at_once =
      std::clamp<int64_t>(kBroughtBytes / (2 * kTile * shape.head_dim * size_of(dtype)), 1, kv_heads);
  std::vector<ForwardTask> tasks;
  for (const Segment& s : segments) {
    const int64_t heads = s.nq <= kFewQueries ? at_once : 1;
    for (int64_t begin = 0; begin < s.nq; begin += kTile) {
      const int64_t k_end = std::clamp<int64_t>(std::min(begin + kTile, s.nq) + s.offset, 0, s.nk);
      for (int64_t head = 0; head < kv_heads; head += heads)
        tasks.push_back({&s, head, std::min(heads, kv_heads - head), begin, k_end});
    }
  }
  // The longest first, so that no thread is left with one at the end.
  std::ranges::stable_sort(tasks, std::greater{}, &ForwardTask::k_end);
  return tasks;
}

// Where tasks are too few for the threads, those of several pieces are cut into tasks that leave what they compute at
// `pieces`, as far as these kPiecesFloats reach, and the others by KV heads; what joins pieces is returned.
std::vector<ForwardTask> cut(std::vector<ForwardTask>& tasks, const AttentionShape& shape, int threads, float* pieces) {
  if (threads == 1 || std::ssize(tasks) >= kTasksOfThread * threads) return {};
  std::vector<ForwardTask> by_head, by_piece, joins;
  const float* const end = pieces + kPiecesFloats;
  for (ForwardTask task : tasks) {
    const int64_t queries = std::min(kTile, task.segment->nq - task.q_begin);
    const int64_t count = forward_pieces(*task.segment, task.k_end);
    const int64_t floats = piece_floats(task.kv_heads * shape.heads / shape.kv_heads * queries, shape.head_dim) * count;
    if (count == 1 || floats > end - pieces) {
      const int64_t last = task.kv_head + std::exchange(task.kv_heads, 1);
      for (; task.kv_head < last; ++task.kv_head) by_head.push_back(task);
      continue;
    }
    task.pieces = pieces;
    task.part = ForwardPart::join;
    joins.push_back(task);
    task.part = ForwardPart::piece;
    for (task.piece = 0; task.piece < count; ++task.piece) by_piece.push_back(task);
    pieces += floats;
  }
  tasks = std::move(by_head);  // which are long, or few
  tasks.insert(tasks.end(), by_piece.begin(), by_piece.end());
  return joins;
}

struct BackwardTasks {
  std::vector<BackwardTask> tasks, joins;  // which come behind all tasks
};

// The two halves of a KV head's keys, whose sums lie at `halves`.
void cut_in_halves(BackwardTask task, float* halves, BackwardTasks& to) {
  task.halves = halves;
  for (const BackwardPart part : {BackwardPart::first_half, BackwardPart::second_half, BackwardPart::join}) {
    task.part = part;
    (part == BackwardPart::join ? to.joins : to.tasks).push_back(task);
  }
}

void cut_in_tiles(const Segment& s, int64_t head, std::vector<BackwardTask>& to) {
  for (int64_t k0 = 0; k0 < s.nk; k0 += kTile) to.push_back({&s, head, BackwardPart::key_tile, k0});
  for (int64_t q0 = (s.nq - 1) / kTile * kTile; q0 >= 0 && s.nq > 0; q0 -= kTile)
    to.push_back({&s, head, BackwardPart::query_tile, q0});
}

// A segment's KV head in one pass, or in two halves of its keys, costs five products a tile, cut into key tiles and
// query tiles seven: those are cut whose dq does not fit a thread's scratch, which cost more than a thread's share, and
// those that would be the last round's, one for some threads and none for the others. Where the last round would have
// one for exactly half of the threads, those are cut into halves.
BackwardTasks backward_tasks(std::span<const Segment> segments, const AttentionShape& shape, int threads,
                             float* pieces) {
  struct Unit {
    const Segment* segment;
    int64_t pairs;
  };
  std::vector<Unit> units;
  int64_t all = 0;
  for (const Segment& s : segments) {
    units.push_back({&s, visible_pairs(s)});
    all += units.back().pairs * shape.kv_heads;
  }
  std::ranges::stable_sort(units, std::greater{}, &Unit::pairs);
  const int64_t count = static_cast<int64_t>(units.size()) * shape.kv_heads, last_round = count / threads * threads;
  const bool half_a_round = 2 * (count - last_round) == threads;
  const float* const end = pieces + kPiecesFloats;
  BackwardTasks found;
  std::vector<BackwardTask> tiles;
  int64_t at = 0;
  for (const Unit& unit : units) {
    const Segment& s = *unit.segment;
    const int64_t halves = keys_of_first_half(s, shape) < s.nk ? 2 : 1, floats = halves * half_floats(shape, s.nq);
    for (int64_t head = 0; head < shape.kv_heads; ++head, ++at) {
      if (floats <= kOnePassFloats && unit.pairs * threads <= all && at < last_round) {
        found.tasks.push_back({&s, head});
      } else if (halves == 2 && unit.pairs * threads <= 2 * all && floats <= end - pieces && half_a_round &&
                 at >= last_round) {
        cut_in_halves({&s, head}, std::exchange(pieces, pieces + floats), found);
      } else {
        cut_in_tiles(s, head, tiles);
      }
    }
  }
  found.tasks.insert(found.tasks.end(), tiles.begin(), tiles.end());
  return found;
}

}  // namespace

void CpuBackend::do_attention(Tensor q, const KvView& kv, std::span<const Segment> segments,
                              const AttentionShape& shape, Tensor o, Tensor lse) {
  require(kv.k.dtype == q.dtype && kv.v.dtype == q.dtype && o.dtype == q.dtype, "attention's tensors are of one dtype");
  std::vector<ForwardTask> tasks = forward_tasks(segments, shape, q.dtype);
  const std::vector<ForwardTask> joins = cut(tasks, shape, threads_, reinterpret_cast<float*>(attention_pieces_.get()));
  const AttentionForward call{q, kv, shape, o, lse};
  run(tasks, forward_kernels().of(q.dtype), call, threads_);
  if (!joins.empty()) run(joins, forward_kernels().of(q.dtype), call, threads_);
}

void CpuBackend::do_attention_backward(Tensor q, const KvView& kv, std::span<const Segment> segments,
                                       const AttentionShape& shape, Tensor o, Tensor lse, Tensor d_o, Tensor dq,
                                       Tensor dk, Tensor dv) {
  const BackwardTasks found =
      backward_tasks(segments, shape, threads_, reinterpret_cast<float*>(attention_pieces_.get()));
  const AttentionBackward call{q, kv, shape, o, lse, d_o, dq, dk, dv};
  run(found.tasks, backward_kernels().of(q.dtype), call, threads_);
  if (!found.joins.empty()) run(found.joins, backward_kernels().of(q.dtype), call, threads_);
}

}  // namespace drover::cpu
