// The only file that includes cudnn-frontend, which takes a minute to compile.
#include "kernels/cuda/cudnn_graph.h"

#include <cudnn_frontend.h>

#include <algorithm>
#include <unordered_map>
#include <vector>

#include "kernels/base/error.h"

namespace drover::cuda {

namespace fe = cudnn_frontend;

namespace {

using TensorPointer = std::shared_ptr<fe::graph::Tensor_attributes>;

constexpr int64_t kLengths = 100, kKeyLengths = 101, kKeyBlocks = 102, kValueBlocks = 103,
                  kOffsets = 200;  // uids; a member's is its own number
constexpr int kComputeCapability = 90;

}  // namespace

struct CudnnGraph::State {
  GraphShape shape;
  fe::graph::Graph graph;
  std::vector<TensorPointer> offsets;  // by pitch
  std::vector<int64_t> pitches;
  int64_t workspace = 0;

  explicit State(const GraphShape& of) : shape(of), pitches(offset_pitches(of)) {}

  TensorPointer ragged_offset(int64_t pitch) {
    return offsets[static_cast<size_t>(std::find(pitches.begin(), pitches.end(), pitch) - pitches.begin())];
  }
  void describe(fe::graph::Tensor_attributes& t, GraphShape::Member member) {
    const bool query_heads =
        member == GraphShape::kQ || member == GraphShape::kO || member == GraphShape::kDO || member == GraphShape::kDQ;
    const bool lse = member == GraphShape::kLse;
    const int64_t heads = query_heads || lse ? shape.heads : shape.kv_heads, width = lse ? 1 : shape.head_dim,
                  pitch = shape.pitch[member];
    t.set_dim({shape.documents, heads, shape.longest, width}).set_stride({shape.longest * pitch, width, pitch, 1});
    if (!shape.equal) t.set_ragged_offset(ragged_offset(pitch));
    t.set_uid(member).set_data_type(lse ? fe::DataType_t::FLOAT : fe::DataType_t::BFLOAT16);
  }
  TensorPointer input(const char* name, GraphShape::Member member) {
    fe::graph::Tensor_attributes t;
    t.set_name(name);
    describe(t, member);
    return graph.tensor(t);
  }
  void output(const TensorPointer& t, GraphShape::Member member) {
    t->set_output(true);
    describe(*t, member);
  }

  TensorPointer table(const char* name, int64_t uid, int64_t entries, fe::DataType_t type = fe::DataType_t::INT32) {
    return graph.tensor(fe::graph::Tensor_attributes()
                            .set_name(name)
                            .set_uid(uid)
                            .set_dim({entries, 1, 1, 1})
                            .set_stride({1, 1, 1, 1})
                            .set_data_type(type));
  }
  void add_offsets() {
    for (size_t i = 0; i < pitches.size(); ++i) {
      offsets.push_back(
          table("begins", kOffsets + static_cast<int64_t>(i), shape.documents + 1, fe::DataType_t::INT64));
    }
  }

  void lay_out() {
    graph.set_io_data_type(fe::DataType_t::BFLOAT16)
        .set_intermediate_data_type(fe::DataType_t::FLOAT)
        .set_compute_data_type(fe::DataType_t::FLOAT);
    if (shape.paged) return lay_out_chunks();
    shape.decode ? lay_out_decode() : lay_out_documents();
  }

  // The last rows of each sequence, in one tensor; keys and values in blocks that the sequence's row of a table names.
  void lay_out_chunks() {
    const TensorPointer rows = table("query lengths", kLengths, shape.documents),
                        keys = table("key lengths", kKeyLengths, shape.documents);
    add_offsets();
    const auto blocks_of = [&](const char* name, int64_t uid) {
      const int64_t columns = shape.keys / shape.block_size;
      return graph.tensor(fe::graph::Tensor_attributes()
                              .set_name(name)
                              .set_uid(uid)
                              .set_dim({shape.documents, 1, columns, 1})
                              .set_stride({columns, columns, 1, 1})
                              .set_data_type(fe::DataType_t::INT32));
    };
    const auto cache = [&](const char* name, GraphShape::Member member) {
      const int64_t pitch = shape.pitch[member];
      return graph.tensor(fe::graph::Tensor_attributes()
                              .set_name(name)
                              .set_uid(member)
                              .set_dim({shape.blocks, shape.kv_heads, shape.block_size, shape.head_dim})
                              .set_stride({shape.block_size * pitch, shape.head_dim, pitch, 1})
                              .set_data_type(fe::DataType_t::BFLOAT16));
    };
    const TensorPointer q = input("q", GraphShape::kQ), k = cache("k", GraphShape::kK), v = cache("v", GraphShape::kV);
    fe::graph::SDPA_attributes options;
    options.set_name("chunks")
        .set_generate_stats(true)
        .set_attn_scale(shape.scale)
        .set_causal_mask_bottom_right(true)
        .set_padding_mask(true)
        .set_seq_len_q(rows)
        .set_seq_len_kv(keys)
        .set_paged_attention_k_table(blocks_of("blocks of k", kKeyBlocks))
        .set_paged_attention_v_table(blocks_of("blocks of v", kValueBlocks))
        .set_paged_attention_max_seq_len_kv(static_cast<int>(shape.keys));
    const auto [o, stats] = graph.sdpa(q, k, v, options);
    output(o, GraphShape::kO);
    output(stats, GraphShape::kLse);
  }

  void lay_out_documents() {
    const TensorPointer lengths = shape.equal ? nullptr : table("lengths", kLengths, shape.documents);
    add_offsets();
    const TensorPointer q = input("q", GraphShape::kQ), k = input("k", GraphShape::kK), v = input("v", GraphShape::kV);
    if (!shape.backward) {
      fe::graph::SDPA_attributes options;
      options.set_name("attention").set_generate_stats(true).set_attn_scale(shape.scale).set_causal_mask(true);
      if (lengths) options.set_padding_mask(true).set_seq_len_q(lengths).set_seq_len_kv(lengths);
      const auto [o, stats] = graph.sdpa(q, k, v, options);
      output(o, GraphShape::kO);
      output(stats, GraphShape::kLse);
      return;
    }
    fe::graph::SDPA_backward_attributes options;
    options.set_name("attention backward")
        .set_attn_scale(shape.scale)
        .set_causal_mask(true)
        .set_deterministic_algorithm(shape.deterministic);
    options.set_padding_mask(true).set_seq_len_q(lengths).set_seq_len_kv(lengths);
    if (shape.rows > 0) options.set_max_total_seq_len_q(shape.rows).set_max_total_seq_len_kv(shape.rows);
    const TensorPointer o = input("o", GraphShape::kO), d_o = input("d_o", GraphShape::kDO),
                        lse = input("lse", GraphShape::kLse);
    const auto [dq, dk, dv] = graph.sdpa_backward(q, k, v, o, d_o, lse, options);
    output(dq, GraphShape::kDQ);
    output(dk, GraphShape::kDK);
    output(dv, GraphShape::kDV);
  }

  // A query row of each sequence sees all keys that the sequence has so far; what lies behind them in its cache is
  // masked.
  void lay_out_decode() {
    const auto describe_rows = [&](fe::graph::Tensor_attributes& t, GraphShape::Member member) {
      const bool keys = member == GraphShape::kK || member == GraphShape::kV, lse = member == GraphShape::kLse;
      const int64_t pitch = shape.pitch[member], rows = keys ? shape.longest : 1, width = lse ? 1 : shape.head_dim,
                    apart = keys && shape.rows > 0 ? shape.rows : rows;
      t.set_dim({shape.documents, keys ? shape.kv_heads : shape.heads, rows, width})
          .set_stride({apart * pitch, width, pitch, 1});
      t.set_uid(member).set_data_type(lse ? fe::DataType_t::FLOAT : fe::DataType_t::BFLOAT16);
    };
    const auto rows_in = [&](const char* name, GraphShape::Member member) {
      fe::graph::Tensor_attributes t;
      t.set_name(name);
      describe_rows(t, member);
      return graph.tensor(t);
    };
    fe::graph::SDPA_attributes options;
    options.set_name("decoding").set_generate_stats(true).set_attn_scale(shape.scale);
    options.set_padding_mask(true)
        .set_seq_len_q(table("query lengths", kLengths, shape.documents))
        .set_seq_len_kv(table("key lengths", kKeyLengths, shape.documents));
    const TensorPointer q = rows_in("q", GraphShape::kQ), k = rows_in("k", GraphShape::kK),
                        v = rows_in("v", GraphShape::kV);
    const auto [o, stats] = graph.sdpa(q, k, v, options);
    for (const auto& [t, member] : {std::pair{o, GraphShape::kO}, {stats, GraphShape::kLse}}) {
      t->set_output(true);
      describe_rows(*t, member);
    }
  }

  // cuDNN's words where it refuses; empty when the plan is built.
  std::string build(cudnnHandle_t handle, bool compile) {
    const auto refused = [](fe::error_t e) { return e.is_bad() ? e.get_message() : std::string(); };
    std::string why_not = refused(graph.validate());
    if (why_not.empty())
      why_not = refused(handle ? graph.build_operation_graph(handle) : graph.build_operation_graph());
    if (why_not.empty()) why_not = refused(graph.create_execution_plans({fe::HeurMode_t::A}));
    if (why_not.empty()) why_not = refused(graph.check_support());
    if (!compile) return why_not;
    if (why_not.empty()) why_not = refused(graph.build_plans(fe::BuildPlanPolicy_t::HEURISTICS_CHOICE));
    if (why_not.empty()) why_not = refused(graph.get_workspace_size(workspace));
    return why_not;
  }
};

CudnnGraph::CudnnGraph(std::unique_ptr<State> state) : state_(std::move(state)) {}
CudnnGraph::~CudnnGraph() = default;

std::unique_ptr<CudnnGraph> CudnnGraph::build(const GraphShape& shape, cudnnHandle_t handle, std::string& why_not) {
  auto state = std::make_unique<State>(shape);
  state->lay_out();
  why_not = state->build(handle, true);
  if (!why_not.empty()) return nullptr;
  return std::unique_ptr<CudnnGraph>(new CudnnGraph(std::move(state)));
}

std::unique_ptr<CudnnGraph> CudnnGraph::build_for(const GraphShape& shape, const std::string& device, bool compile,
                                                  std::string& why_not) {
  auto properties = std::make_shared<fe::DeviceProperties>();
  if (auto e = properties->deserialize({device.begin(), device.end()}); e.is_bad()) {
    why_not = "the device's properties are not understood: " + e.get_message();
    return nullptr;
  }
  auto state = std::make_unique<State>(shape);
  state->graph.set_device_properties(properties).set_sm_version(kComputeCapability);
  state->lay_out();
  why_not = state->build(nullptr, compile);
  if (!why_not.empty()) return nullptr;
  return std::unique_ptr<CudnnGraph>(new CudnnGraph(std::move(state)));
}

int64_t CudnnGraph::workspace_bytes() const { return state_->workspace; }

void CudnnGraph::run(cudnnHandle_t handle, const std::array<void*, GraphShape::kMembers>& data, char* tables,
                     void* workspace) {
  std::unordered_map<int64_t, void*> pointers;
  if (!state_->shape.equal) pointers[kLengths] = tables;
  if (state_->shape.decode || state_->shape.paged)
    pointers[kKeyLengths] = tables + document_tables_at(state_->shape, -1);
  if (state_->shape.paged) pointers[kKeyBlocks] = pointers[kValueBlocks] = tables + blocks_at(state_->shape);
  for (size_t i = 0; i < state_->pitches.size(); ++i) {
    const int64_t index = static_cast<int64_t>(i);
    pointers[kOffsets + index] = tables + document_tables_at(state_->shape, index);
  }
  for (int64_t member = 0; member < GraphShape::kMembers; ++member) {
    if (data[static_cast<size_t>(member)] != nullptr) pointers[member] = data[static_cast<size_t>(member)];
  }
  if (auto e = state_->graph.execute(handle, pointers, workspace); e.is_bad()) {
    fail(Fault::internal, "internal error: cuDNN's attention failed: {}", e.get_message());
  }
}

}  // namespace drover::cuda
