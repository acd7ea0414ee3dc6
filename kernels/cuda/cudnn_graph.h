// One of cuDNN's attention graphs with its plan: grouped-query, bf16 with f32 sums, lse in and out; causal documents,
// ragged ("THD") or of one length, one query row a sequence, or chunks over a cache in blocks. Built on a device, or
// for a device that is only described, which shows without a GPU that cuDNN has an engine for the graph and what memory
// it takes. Source: cuDNN 9 developer guide, scaled dot product attention; cudnn-frontend 1.32.
#pragma once
#include <cudnn.h>

#include <array>
#include <memory>
#include <string>

#include "kernels/cuda/attention_graph_shape.h"

namespace drover::cuda {

class CudnnGraph {
 public:
  // Null where cuDNN has no engine for the shape; `why_not` then holds its words.
  static std::unique_ptr<CudnnGraph> build(const GraphShape& shape, cudnnHandle_t handle, std::string& why_not);
  // `device`: cuDNN's JSON of a device's properties (CUDNN_ATTR_DEVICEPROP_JSON_REPRESENTATION) with compute
  // capability 9.0. Such a graph cannot run. Not compiled (a second each), it is known to be supported, and its
  // workspace is not known (0).
  static std::unique_ptr<CudnnGraph> build_for(const GraphShape& shape, const std::string& device, bool compile,
                                               std::string& why_not);
  ~CudnnGraph();

  int64_t workspace_bytes() const;
  // data[member] and the document tables (attention_graph_shape.h) are device pointers; `workspace` has
  // workspace_bytes(), 256-byte aligned.
  void run(cudnnHandle_t handle, const std::array<void*, GraphShape::kMembers>& data, char* tables, void* workspace);

 private:
  struct State;
  explicit CudnnGraph(std::unique_ptr<State> state);
  std::unique_ptr<State> state_;
};

}  // namespace drover::cuda
