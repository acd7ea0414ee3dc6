#include "launch/plan_search.h"

#include <algorithm>
#include <charconv>
#include <functional>
#include <set>

#include "kernels/base/error.h"
#include "launch/planned_machine.h"
#include "trainer/engine/plan.h"
#include "trainer/planning/planned_run.h"
#include "trainer/setup/adapter_setup.h"
#include "trainer/setup/engine_settings.h"
#include "trainer/setup/fp8_linears.h"

namespace drover {

namespace {

// What a process takes of its GPU next to its arenas: CUDA's context, the libraries' workspaces, NCCL's buffers.
constexpr double kLibraryBytes = 3e9;
constexpr double kHostShare = 0.9;  // of a host's memory that weights may take
constexpr size_t kShown = 5;
constexpr int kMostStages = 16;
constexpr int64_t kMostMicroBatch = 8;

Recipe recipe_of(const Recipe& recipe, const Layout& layout) {
  Recipe r = recipe;
  r.parallel.tp = layout.shape.tp(), r.parallel.pp = layout.shape.pp(), r.parallel.dp = layout.shape.dp();
  r.train.micro_batch_size = layout.micro_batch;
  r.memory.activation_checkpointing = layout.recompute ? ActivationCheckpointing::full : ActivationCheckpointing::none;
  r.memory.weights = layout.host ? WeightHome::host : WeightHome::resident;
  r.model.weights = layout.weights;
  return r;
}

EngineSettings settings_of(const Recipe& recipe, const ModelConfig& model, const AdapterLayout& adapter,
                           const MeshShape& shape) {
  EngineSettings s = engine_settings(recipe, model, adapter, shape, nullptr);
  s.stored = scaling_of(recipe);
  s.traits = traits_of(DeviceKind::cuda);
  s.overlaps_sums = !recipe.train.deterministic;
  return s;
}

std::vector<int> divisors(int n) {
  std::vector<int> found;
  for (int d = 1; d <= n; ++d) {
    if (n % d == 0) found.push_back(d);
  }
  return found;
}

MeshShape mesh_of(int tp, int pp, int dp) {
  MeshShape shape;
  shape[Axis::tp] = tp, shape[Axis::pp] = pp, shape[Axis::dp] = dp;
  return shape;
}

std::vector<MeshShape> meshes(const SearchQuestion& q, int gpus) {
  std::vector<MeshShape> found;
  const int node = static_cast<int>(q.machine.gpus_a_node);
  for (const int tp : divisors(gpus)) {
    if (tp > node || !why_not_tp(q.model, tp).empty()) continue;
    for (const int pp : divisors(gpus / tp)) {
      const int dp = gpus / tp / pp;
      if (pp > std::min<int64_t>(kMostStages, q.model.layers) || q.read.recipe.train.global_batch_size % dp != 0)
        continue;
      found.push_back(mesh_of(tp, pp, dp));
    }
  }
  return found;
}

// The weight formats to look at, the least changed first: the recipe's own, and smaller ones.
std::vector<WeightFormat> formats(const Recipe& recipe) {
  const WeightFormat own = recipe.model.weights;
  std::vector<WeightFormat> all{own};
  if (recipe.train.matmul == MatmulNumbers::fp8) return all;  // says the format
  for (const WeightFormat smaller : {WeightFormat::fp8, WeightFormat::nf4}) {
    if (own != WeightFormat::nf4 && own != smaller) all.push_back(smaller);
  }
  return all;
}

// A lower bound, so that what cannot fit is not counted.
double least_bytes(const ModelConfig& model, const Layout& layout, bool stored_as_codes) {
  const double blocks = static_cast<double>(parameter_count(model) - 2 * model.vocab * model.hidden);
  const bool codes = layout.weights == WeightFormat::as_is && stored_as_codes;
  const double bytes = codes || layout.weights == WeightFormat::nf4 ? 0.5
                       : layout.weights == WeightFormat::fp8        ? 1
                                                                    : 1.9;
  return layout.host ? 0 : blocks * bytes / (layout.shape.tp() * layout.shape.pp());
}

class Search {
 public:
  explicit Search(const SearchQuestion& q) : q_(q), room_(q.machine.memory_bytes - kLibraryBytes) {
    const ScalingOf stored = scaling_of(q.read.recipe);
    for (const ParamSpec& spec : weight_table(q.model)) codes_ |= stored && stored(spec).has_value();
  }

  SearchResult run() {
    result_.room = q_.machine.memory_bytes;
    bool any = false;
    for (const int gpus : q_.gpus) {
      std::vector<LayoutPlan> fitting;
      for (const WeightFormat format : formats(q_.read.recipe)) {
        for (const MeshShape& shape : meshes(q_, gpus)) any = true, add(shape, format, fitting);
        if (!fitting.empty()) break;
      }
      keep(std::move(fitting));
    }
    if (!any) {
      fail(Fault::bad_recipe,
           "no mesh of {} GPUs divides the model's heads and layers and train.global_batch_size {}; choose other "
           "numbers (--gpus), or another global batch",
           fmt::join(q_.gpus, ", "), q_.read.recipe.train.global_batch_size);
    }
    if (result_.fastest.empty()) look_for_changes();
    return std::move(result_);
  }

 private:
  bool fits_host(const LayoutPlan& plan) const {
    return static_cast<double>(plan.host_bytes) <= kHostShare * q_.machine.host_memory_bytes;
  }
  bool fits(const LayoutPlan& plan) const {
    return static_cast<double>(plan.bytes) <= q_.machine.memory_bytes && fits_host(plan);
  }

  // Activations are kept where they fit, weights stay where they fit: recomputing and copying only cost time.
  void add(const MeshShape& shape, WeightFormat format, std::vector<LayoutPlan>& fitting) {
    const int64_t rows = q_.read.recipe.train.global_batch_size / shape.dp();
    for (const bool host : {false, true}) {
      bool some = false;
      for (int64_t micro = 1; micro <= std::min(rows, kMostMicroBatch); micro *= 2) {
        if (rows % micro != 0) break;
        bool fitted = false;
        for (const bool recompute : {false, true}) {
          const Layout layout{shape, micro, recompute, format, host};
          if (host && (shape.pp() > 1 || !recompute)) continue;  // micro-batches that pass the blocks together
          if (fitted || least_bytes(q_.model, layout, codes_) > room_) continue;
          const LayoutPlan plan = tried(layout);
          fitted = fits(plan);
          if (fitted) fitting.push_back(plan);
        }
        some |= fitted;
        if (!fitted) break;
      }
      if (some) break;
    }
  }

  LayoutPlan tried(const Layout& layout) {
    LayoutPlan plan = plan_layout(q_, layout);
    ++result_.tried;
    if (fits(plan)) {
      ++result_.fitting;
    } else if (fits_host(plan) && (nearest_.empty() || plan.bytes < nearest_.front().bytes)) {
      nearest_ = {plan};
    }
    return plan;
  }

  static bool faster(const LayoutPlan& a, const LayoutPlan& b) {
    return a.tokens_per_second_of_a_gpu() > b.tokens_per_second_of_a_gpu();
  }

  void keep(std::vector<LayoutPlan> fitting) {
    if (fitting.empty()) return;
    std::ranges::sort(fitting, faster);
    result_.by_gpus.push_back(fitting.front());
    std::vector<LayoutPlan>& best = result_.fastest;
    best.insert(best.end(), fitting.begin(),
                fitting.begin() + static_cast<std::ptrdiff_t>(std::min(kShown, fitting.size())));
    std::ranges::sort(best, faster);
    best.resize(std::min(best.size(), kShown));
  }

  // Nothing fits: one change at a time of what is nearest, and more GPUs.
  void look_for_changes() {
    if (nearest_.empty()) nearest_ = {smallest()};
    result_.nearest = nearest_;
    const Layout base = nearest_.front().layout;
    std::vector<Layout> changes;
    const auto change = [&](const auto& set) {
      Layout other = base;
      set(other);
      changes.push_back(other);
    };
    if (!base.recompute) change([](Layout& l) { l.recompute = true; });
    if (!base.host) change([](Layout& l) { l.recompute = true, l.host = true; });
    for (const WeightFormat format : formats(q_.read.recipe)) {
      if (format != base.weights) change([&](Layout& l) { l.weights = format; });
    }
    for (const int times : {2, 4, 8}) {
      Layout other = base;
      other.shape[Axis::pp] *= times;
      if (other.shape.pp() <= q_.model.layers) changes.push_back(other);
    }
    for (const Layout& layout : changes) {
      const LayoutPlan plan = plan_layout(q_, layout);
      if (fits(plan)) result_.changes.push_back(plan);
    }
    std::ranges::sort(result_.changes, faster);
    result_.changes.resize(std::min<size_t>(result_.changes.size(), 3));
  }

  // Of meshes whose weights alone are too large: the most cut one, that keeps least.
  LayoutPlan smallest() {
    std::vector<MeshShape> all;
    for (const int gpus : q_.gpus) {
      for (const MeshShape& shape : meshes(q_, gpus)) all.push_back(shape);
    }
    const MeshShape shape = *std::ranges::max_element(all, {}, [](const MeshShape& m) { return m.tp() * m.pp(); });
    return plan_layout(q_, {shape, 1, true, formats(q_.read.recipe).back(), false});
  }

  const SearchQuestion& q_;
  double room_;
  bool codes_ = false;  // the files hold some weights as codes
  SearchResult result_;
  std::vector<LayoutPlan> nearest_;
};

}  // namespace

LayoutPlan plan_layout(const SearchQuestion& q, const Layout& layout) {
  const Recipe recipe = recipe_of(q.read.recipe, layout);
  const AdapterLayout adapter = adapter_layout_of(q.model, adapter_config(q.read));
  EngineSettings settings = settings_of(recipe, q.model, adapter, layout.shape);
  fp8_linears(settings, layout.shape);
  LayoutPlan plan{.layout = layout};
  // In flight behind the first stage are fewer micro-batches than in it, and no embedding.
  for (const int stage : std::set<int>{0, std::min(1, layout.shape.pp() - 1), layout.shape.pp() - 1}) {
    const RankPlan rank = plan_rank(settings, layout.shape, MeshPosition{{Axis::pp, stage}});
    plan.bytes = std::max(plan.bytes, rank.bytes.total() + static_cast<int64_t>(kLibraryBytes));
    plan.host_bytes =
        std::max(plan.host_bytes, rank.host_bytes * std::min<int64_t>(layout.shape.size(), q.machine.gpus_a_node));
  }
  const RoughRates rough = rough_rates(q.machine);
  const TimePlan time = plan_time(settings, layout.shape, planned_work(recipe, settings, layout.shape, nullptr),
                                  {.rates = Rates(rough), .peak = rough.peak});
  plan.step_seconds = time.step_seconds, plan.tokens_per_second = time.tokens_per_second;
  plan.mfu = time.mfu, plan.bubble = time.bubble, plan.exposed = time.exposed_seconds / time.step_seconds;
  return plan;
}

SearchResult search(const SearchQuestion& question) { return Search(question).run(); }

std::vector<int> gpu_counts(const std::string& text) {
  constexpr int kMost = 4096;
  const auto number = [](std::string_view digits) {
    int value = 0;
    const auto [end, problem] = std::from_chars(digits.data(), digits.data() + digits.size(), value);
    return problem == std::errc() && end == digits.data() + digits.size() ? value : 0;
  };
  const size_t dots = text.find("..");
  const int first = number(text.substr(0, dots)),
            last = dots == std::string::npos ? first : number(text.substr(dots + 2));
  if (first < 1 || last < first || last > kMost)
    fail(Fault::usage, "--gpus {}: allowed are a number of GPUs up to {}, or a range such as 8..128", text, kMost);
  std::vector<int> counts;
  for (int n = first; n < last; n *= 2) counts.push_back(n);
  counts.push_back(last);
  return counts;
}

}  // namespace drover
