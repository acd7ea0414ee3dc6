#include "launch/verbs/inference_setup.h"

#include <algorithm>

#include "kernels/base/error.h"
#include "kernels/comm/agree.h"
#include "kernels/comm/gather.h"
#include "launch/open_device.h"
#include "launch/serve/served_models.h"
#include "launch/verbs/run_recipe.h"
#include "model/config.h"
#include "trainer/run/process_memory.h"

namespace drover {

MeshShape inference_mesh(const ParallelSection& parallel, int ranks, const std::string& verb) {
  const int64_t pp = parallel.pp, tp = parallel.tp != 1 ? parallel.tp : std::max<int64_t>(1, ranks / pp);
  if (tp * pp != ranks) {
    fail(Fault::bad_recipe,
         "parallel.tp={} times parallel.pp={} must be the number of ranks, which is {}: {} divides the model over all "
         "of them",
         tp, pp, ranks, verb);
  }
  return {{Axis::tp, static_cast<int>(tp)}, {Axis::pp, static_cast<int>(pp)}};
}

namespace {

bool fits_in_fp32(const ModelConfig& model) {
  return 4 * static_cast<double>(parameter_count(model)) < 0.5 * static_cast<double>(available_machine_bytes());
}

}  // namespace

void choose_inference_dtype(Recipe& recipe, std::span<const std::string> overrides, const Process& process) {
  const auto states_dtype = [](const std::string& text) { return text.starts_with("train.dtype="); };
  if (std::ranges::any_of(overrides, states_dtype)) return;
  bool fits = false;
  together(*process.world,
           [&] { fits = device_of(recipe) == DeviceKind::cpu && fits_in_fp32(read_model_config(recipe.model.path)); });
  if (largest(*process.world, fits ? 0 : 1) == 0) recipe.train.dtype = Precision::fp32;
}

NamedAdapters named_adapters(const std::vector<std::string>& words) {
  NamedAdapters adapters;
  for (const std::string& text : words) {
    const size_t end = text.find('=');
    if (end == std::string::npos || end == 0 || end + 1 == text.size()) {
      fail(Fault::usage, "--adapter {} is not NAME=DIR; an adapter is asked for by its name", text);
    }
    const std::string name = text.substr(0, end);
    if (!is_model_name(name)) fail(Fault::usage, "--adapter {}: a name has {}", text, kModelName);
    if (std::ranges::find(adapters, name, &NamedAdapters::value_type::first) != adapters.end()) {
      fail(Fault::usage, "--adapter gives the name {} twice", name);
    }
    adapters.emplace_back(name, model_directory(text.substr(end + 1)));
  }
  return adapters;
}

}  // namespace drover
