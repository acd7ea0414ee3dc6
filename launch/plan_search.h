// drover plan --gpus A..B --gpu NAME: of all meshes, micro-batches, weight formats and places of the weights that fit
// the GPUs' memory, those that train fastest. Memory and time of each are a plan's: the real step on Count, at the
// hardware table's rates.
#pragma once
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "configs/recipe.h"
#include "launch/planning/hardware.h"
#include "model/config.h"
#include "trainer/planning/time_plan.h"

namespace drover {

struct Layout {
  MeshShape shape;
  int64_t micro_batch = 1;
  bool recompute = false;  // memory.activation_checkpointing: full
  WeightFormat weights = WeightFormat::as_is;
  bool host = false;         // memory.weights: host
  std::string text() const;  // the recipe's keys, as overrides
};

struct LayoutPlan {
  Layout layout;
  int64_t bytes = 0;       // of the fullest GPU, its libraries included
  int64_t host_bytes = 0;  // that a node's host holds of weights, at most
  double step_seconds = 0, tokens_per_second = 0, mfu = 0, bubble = 0, exposed = 0;  // exposed: share of the step
  double tokens_per_second_of_a_gpu() const { return tokens_per_second / layout.shape.size(); }
};

struct SearchQuestion {
  const ReadRecipe& read;
  const ModelConfig& model;
  const Machine machine;
  std::vector<int> gpus;  // ascending
};

struct SearchResult {
  double room = 0;                  // bytes of a GPU
  std::vector<LayoutPlan> fastest;  // of those that fit, the most tokens a second and GPU first; at most five
  std::vector<LayoutPlan> by_gpus;  // the best of each number of GPUs that has one
  int64_t tried = 0, fitting = 0;
  // Where nothing fits: the layout that is nearest to it, and changes of it that fit, the fastest first.
  std::vector<LayoutPlan> nearest, changes;
};

// usage where there is no GPU count; bad_recipe where no mesh of these GPUs divides the model and the batch.
SearchResult search(const SearchQuestion& question);
// One layout's memory and time; of `read` with the layout's keys.
LayoutPlan plan_layout(const SearchQuestion& question, const Layout& layout);

std::vector<int> gpu_counts(const std::string& text);  // "8", "8..128": doublings, and the last; usage for other texts

std::string print_search(const SearchQuestion& question, const SearchResult& result);
nlohmann::ordered_json search_json(const SearchQuestion& question, const SearchResult& result);

}  // namespace drover
