#include "kernels/cuda/attention_graph_shape.h"

#include <algorithm>
#include <bit>
#include <cstring>
#include <span>

namespace drover::cuda {

namespace {

constexpr int64_t kMostDocuments = 1024;
constexpr int64_t kTile = 64;
constexpr int64_t kLeastPagedKeys = 4096;  // of a bucket

bool aligned(const Tensor& t) { return reinterpret_cast<uintptr_t>(t.data) % 16 == 0 && t.pitch % 8 == 0; }

int64_t padded(int64_t bytes) { return (bytes + 15) / 16 * 16; }

void put_tensors(GraphShape& g, const AttentionCall& call, const AttentionGradients* gradients) {
  g.heads = call.shape.heads;
  g.kv_heads = call.shape.kv_heads;
  g.head_dim = call.shape.head_dim;
  g.scale = call.shape.scale;
  g.pitch[GraphShape::kQ] = call.q.pitch;
  g.pitch[GraphShape::kK] = call.kv.k.pitch;
  g.pitch[GraphShape::kV] = call.kv.v.pitch;
  g.pitch[GraphShape::kO] = call.o.pitch;
  g.pitch[GraphShape::kLse] = call.lse.pitch;
  if (gradients == nullptr) return;
  g.pitch[GraphShape::kDO] = gradients->d_o.pitch;
  g.pitch[GraphShape::kDQ] = gradients->dq.pitch;
  g.pitch[GraphShape::kDK] = gradients->dk.pitch;
  g.pitch[GraphShape::kDV] = gradients->dv.pitch;
}

}  // namespace

bool packed_causal(const AttentionCall& call, const AttentionGradients* gradients) {
  const int64_t head_dim = call.shape.head_dim;
  if (call.q.dtype != DType::bf16 || head_dim % 8 != 0 || head_dim > 128 || call.segments.empty()) return false;
  if (static_cast<int64_t>(call.segments.size()) > kMostDocuments) return false;
  if (reinterpret_cast<uintptr_t>(call.lse.data) % 16 != 0) return false;
  for (const Tensor& t : {call.q, call.kv.k, call.kv.v, call.o}) {
    if (!aligned(t)) return false;
  }
  if (gradients != nullptr) {
    for (const Tensor& t : {gradients->d_o, gradients->dq, gradients->dk, gradients->dv}) {
      if (!aligned(t)) return false;
    }
  }
  int64_t next = call.segments[0].q0, longest = 0;
  for (const Segment& s : call.segments) {
    if (s.block_table != nullptr || s.q0 != next || s.k0 != s.q0 || s.nk != s.nq || s.offset != 0) return false;
    next += s.nq;
    longest = std::max(longest, s.nq);
  }
  return longest > 1;  // nothing but single rows: their own key is all that they see, and decoding's kernel does that
}

int64_t document_bucket(int64_t documents) {
  return static_cast<int64_t>(std::bit_ceil(static_cast<uint64_t>(std::max<int64_t>(documents, 1))));
}

int64_t row_bucket(int64_t rows) {
  const int64_t octave = static_cast<int64_t>(std::bit_floor(static_cast<uint64_t>(std::max<int64_t>(rows, 1))));
  const int64_t step = std::max(kTile, octave / 4);
  return std::max(kTile, (rows + step - 1) / step * step);
}

GraphShape graph_shape(const AttentionCall& call, const AttentionGradients* gradients, bool deterministic,
                       int64_t rows_seen) {
  GraphShape g{.backward = gradients != nullptr, .deterministic = gradients != nullptr && deterministic};
  int64_t longest = 0;
  for (const Segment& s : call.segments) longest = std::max(longest, s.nq);
  g.documents = document_bucket(static_cast<int64_t>(call.segments.size()));
  g.longest = row_bucket(longest);
  put_tensors(g, call, gradients);
  if (gradients == nullptr) return g;
  // cuDNN's sums for dq, dk and dv either lie as dense (documents, heads, longest, head_dim) or as the rows of dq, dk
  // and dv do, gaps included and dk and dv once per query head: the smaller. The second is known to be wrong where
  // head_dim is not a multiple of 16. Its parts have (rows - 1)·pitch + H·E floats, one behind another: with rows one
  // more than a multiple of 64, and H·E a multiple of 32, each begins on a 128-byte boundary whatever the pitches.
  const int64_t group = g.heads / g.kv_heads;
  const int64_t dense = g.documents * g.longest * g.heads * g.head_dim;
  const int64_t by_rows =
      rows_seen * (g.pitch[GraphShape::kDQ] + (g.pitch[GraphShape::kDK] + g.pitch[GraphShape::kDV]) * group);
  if (by_rows < dense && g.head_dim % 16 == 0 && g.heads * g.head_dim % 32 == 0) g.rows = rows_seen + 1;
  return g;
}

std::optional<GraphShape> equal_shape(const AttentionCall& call) {
  const int64_t length = call.segments.front().nq;
  for (const Segment& s : call.segments) {
    if (s.nq != length) return {};
  }
  GraphShape g{.equal = true, .documents = static_cast<int64_t>(call.segments.size()), .longest = length};
  put_tensors(g, call, nullptr);
  return g;
}

std::optional<GraphShape> decode_shape(const AttentionCall& call) {
  const int64_t head_dim = call.shape.head_dim;
  if (call.q.dtype != DType::bf16 || head_dim % 8 != 0 || head_dim > 128 || call.segments.empty()) return {};
  for (const Tensor& t : {call.q, call.kv.k, call.kv.v, call.o}) {
    if (!aligned(t)) return {};
  }
  const Segment& first = call.segments.front();
  const int64_t apart = call.segments.size() > 1 ? call.segments[1].k0 - first.k0 : 0;
  int64_t longest = 0, q = first.q0, k = first.k0;
  for (const Segment& s : call.segments) {
    if (s.block_table != nullptr || s.nq != 1 || s.offset < s.nk - 1 || s.nk < 1 || s.q0 != q || s.k0 != k) return {};
    ++q, k += apart;
    longest = std::max(longest, s.nk);
  }
  const int64_t last = call.segments.back().k0,
                room = std::min(call.kv.k.rows - last, apart > 0 ? apart : call.kv.k.rows);
  if (longest < kLeastDecodedKeys || apart < 0 || (call.segments.size() > 1 && apart < longest) || room < longest)
    return {};
  GraphShape g{.decode = true,
               .documents = static_cast<int64_t>(call.segments.size()),
               .longest = std::min(row_bucket(longest), room),
               .rows = apart};
  put_tensors(g, call, nullptr);
  return g;
}

std::optional<GraphShape> paged_shape(const AttentionCall& call) {
  const int64_t head_dim = call.shape.head_dim, block = call.kv.block_size;
  if (call.q.dtype != DType::bf16 || head_dim % 8 != 0 || head_dim > 128 || call.segments.empty() || block < 1)
    return {};
  if (static_cast<int64_t>(call.segments.size()) > kMostDocuments || call.kv.k.rows < block) return {};
  if (reinterpret_cast<uintptr_t>(call.lse.data) % 16 != 0) return {};
  for (const Tensor& t : {call.q, call.kv.k, call.kv.v, call.o}) {
    if (!aligned(t)) return {};
  }
  int64_t next = call.segments.front().q0, longest = 0, keys = 0;
  for (const Segment& s : call.segments) {
    if (s.block_table == nullptr || s.q0 != next || s.nq < 2 || s.nk < s.nq || s.offset != s.nk - s.nq) return {};
    next += s.nq;
    longest = std::max(longest, s.nq);
    keys = std::max(keys, s.nk);
  }
  GraphShape g{.paged = true,
               .documents = document_bucket(static_cast<int64_t>(call.segments.size())),
               .longest = std::max(kTile, static_cast<int64_t>(std::bit_ceil(static_cast<uint64_t>(longest)))),
               .keys = kLeastPagedKeys,
               .blocks = call.kv.k.rows / block,
               .block_size = block};
  while (g.keys < keys) g.keys *= 4;  // no more is computed for it, only longer tables of blocks
  g.keys = (g.keys + block - 1) / block * block;
  put_tensors(g, call, nullptr);
  return g;
}

std::vector<int64_t> offset_pitches(const GraphShape& shape) {
  std::vector<int64_t> pitches;
  if (shape.decode || shape.equal) return pitches;
  for (size_t member = 0; member < shape.pitch.size(); ++member) {
    if (shape.paged && (member == GraphShape::kK || member == GraphShape::kV)) continue;
    const int64_t pitch = shape.pitch[member];
    if (pitch > 0 && std::find(pitches.begin(), pitches.end(), pitch) == pitches.end()) pitches.push_back(pitch);
  }
  return pitches;
}

int64_t document_tables_at(const GraphShape& shape, int64_t pitch_index) {
  if (pitch_index < 0) pitch_index = static_cast<int64_t>(offset_pitches(shape).size());
  return padded(shape.documents * static_cast<int64_t>(sizeof(int32_t))) +
         pitch_index * padded((shape.documents + 1) * static_cast<int64_t>(sizeof(int64_t)));
}

int64_t blocks_at(const GraphShape& shape) {
  return document_tables_at(shape, -1) + padded(shape.documents * static_cast<int64_t>(sizeof(int32_t)));
}

namespace {

int64_t row_of_blocks(const GraphShape& shape) {
  return shape.keys / shape.block_size * static_cast<int64_t>(sizeof(int32_t));
}
int64_t tables_bytes(const GraphShape& shape) {
  if (!shape.paged) return document_tables_at(shape, -1);
  return blocks_at(shape) + shape.documents * row_of_blocks(shape);
}

}  // namespace

std::vector<char> document_tables(const AttentionCall& call, const GraphShape& shape) {
  if (shape.equal) return {};
  std::vector<int32_t> lengths(static_cast<size_t>(shape.documents), 0);
  if (shape.decode) {
    const size_t part = static_cast<size_t>(padded(shape.documents * static_cast<int64_t>(sizeof(int32_t))));
    std::vector<char> image(2 * part, 0);
    std::fill(lengths.begin(), lengths.end(), 1);
    std::memcpy(image.data(), lengths.data(), lengths.size() * sizeof(int32_t));
    for (size_t i = 0; i < call.segments.size(); ++i) lengths[i] = static_cast<int32_t>(call.segments[i].nk);
    std::memcpy(image.data() + part, lengths.data(), lengths.size() * sizeof(int32_t));
    return image;
  }
  std::vector<int64_t> begins(static_cast<size_t>(shape.documents) + 1,
                              call.segments.back().q0 + call.segments.back().nq);
  for (size_t i = 0; i < call.segments.size(); ++i) {
    lengths[i] = static_cast<int32_t>(call.segments[i].nq);
    begins[i] = call.segments[i].q0;
  }
  std::vector<char> image(static_cast<size_t>(tables_bytes(shape)), 0);
  const auto put = [&](int64_t at, const auto& items) {
    std::memcpy(image.data() + at, items.data(), items.size() * sizeof(items[0]));
  };
  put(0, lengths);
  const std::vector<int64_t> pitches = offset_pitches(shape);
  for (size_t p = 0; p < pitches.size(); ++p) {
    std::vector<int64_t> elements = begins;
    for (int64_t& e : elements) e *= pitches[p];
    put(document_tables_at(shape, static_cast<int64_t>(p)), elements);
  }
  if (!shape.paged) return image;
  for (size_t i = 0; i < call.segments.size(); ++i) {
    const Segment& s = call.segments[i];
    lengths[i] = static_cast<int32_t>(s.nk);
    const int64_t blocks = (s.nk + shape.block_size - 1) / shape.block_size;
    put(blocks_at(shape) + static_cast<int64_t>(i) * row_of_blocks(shape),
        std::span(s.block_table, static_cast<size_t>(blocks)));
  }
  put(document_tables_at(shape, -1), lengths);
  return image;
}

}  // namespace drover::cuda
