#include "kernels/cuda/pass_graphs.h"

#include <cstdlib>
#include <string_view>
#include <utility>

#include "kernels/base/error.h"
#include "kernels/cuda/check.h"

namespace drover::cuda {

namespace {

bool graphs_are_wanted() {
  const char* set = std::getenv("DROVER_PASS_GRAPHS");
  const std::string_view word = set == nullptr ? "on" : set;
  if (word != "on" && word != "off")
    fail(Fault::usage, "DROVER_PASS_GRAPHS is {}; it may be on (the default) or off", word);
  return word == "on";
}

}  // namespace

PassGraphs::PassGraphs(cudaStream_t stream, const Traffic& traffic)
    : stream_(stream), traffic_(traffic), captures_(graphs_are_wanted()) {}

PassGraphs::~PassGraphs() {
  for (const auto& [key, entry] : entries_) cudaGraphExecDestroy(entry.graph);
}

void PassGraphs::forget_all() {
  check(cudaStreamSynchronize(stream_), "cudaStreamSynchronize");
  for (const auto& [key, entry] : entries_) check(cudaGraphExecDestroy(entry.graph), "cudaGraphExecDestroy");
  entries_.clear();
}

cudaGraphExec_t PassGraphs::capture(const std::function<void()>& enqueue) {
  cudaGraph_t graph = nullptr;
  check(cudaStreamBeginCapture(stream_, cudaStreamCaptureModeThreadLocal), "cudaStreamBeginCapture");
  try {
    enqueue();
  } catch (...) {
    cudaStreamEndCapture(stream_, &graph);
    cudaGraphDestroy(graph);
    throw;
  }
  check(cudaStreamEndCapture(stream_, &graph), "cudaStreamEndCapture");
  cudaGraphExec_t made = nullptr;
  const cudaError_t result = cudaGraphInstantiate(&made, graph, 0);
  cudaGraphDestroy(graph);
  check(result, "cudaGraphInstantiate");
  ++captured_;
  return made;
}

void PassGraphs::run(const Key& key, const std::function<void()>& enqueue) {
  if (!captures_) return enqueue();
  if (entries_.size() >= kMostKeys && !entries_.contains(key)) forget_all();
  Entry& entry = entries_[key];
  if (entry.runs < kPlainRuns) {
    const int64_t moved = traffic_.uploads + traffic_.downloads;
    enqueue();
    entry.runs = traffic_.uploads + traffic_.downloads == moved ? entry.runs + 1 : 0;
    return;
  }
  if (entry.graph != nullptr && entry.allocations != traffic_.allocations) {
    check(cudaStreamSynchronize(stream_), "cudaStreamSynchronize");
    check(cudaGraphExecDestroy(std::exchange(entry.graph, nullptr)), "cudaGraphExecDestroy");
  }
  if (entry.graph == nullptr) {
    entry.graph = capture(enqueue);
    entry.allocations = traffic_.allocations;
  }
  check(cudaGraphLaunch(entry.graph, stream_), "cudaGraphLaunch");
  ++launched_;
}

}  // namespace drover::cuda
