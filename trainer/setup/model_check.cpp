#include "trainer/setup/model_check.h"

#include <nlohmann/json.hpp>

#include "kernels/base/hash.h"
#include "kernels/base/log.h"
#include "kernels/comm/agree.h"
#include "model/weight_table.h"

namespace drover {

namespace {

void check_names(const ModelDirectory& model, std::span<const ExpectedTensor> expected) {
  const std::vector<std::string> surplus = model.check_names(expected);
  if (!surplus.empty())
    log::warn("{} holds {} tensors that a Llama model does not use, {} first; they are ignored", model.path().string(),
              surplus.size(), surplus.front());
}

}  // namespace

void check_weights(ModelDirectory& model) {
  std::vector<ExpectedTensor> expected;
  for (const ParamSpec& spec : weight_table(model.config())) expected.push_back({spec.name, spec.rows, spec.cols});
  check_names(model, expected);
  model.check_shapes(expected);
}

std::string check_weights_together(ModelDirectory& model, LayerRange mine, Communicator& world) {
  const bool end_stage = mine.begin == 0 || mine.end == model.config().layers;
  std::map<std::string, std::string> files;
  together(world, [&] {
    std::vector<ExpectedTensor> all, own;
    std::vector<std::string> names;
    for (const ParamSpec& spec : weight_table(model.config())) {
      all.push_back({spec.name, spec.rows, spec.cols});
      if (spec.layer < 0 ? !end_stage : spec.layer < mine.begin || spec.layer >= mine.end) continue;
      own.push_back(all.back());
      names.push_back(spec.name);
    }
    check_names(model, all);
    model.check_shapes(own);
    files = model.fingerprints(names);
    files["config.json"] = sha256_hex(
        nlohmann::json::parse(read_text(model.path() / "config.json")).dump());  // what it says, not how it is laid out
  });

  std::map<std::string, std::string> whole;
  const std::vector<std::string> parts = world.gather_strings(nlohmann::json(files).dump());
  for (size_t rank = 0; rank < parts.size(); ++rank) {
    for (const auto& [file, hash] : nlohmann::json::parse(parts[rank]).get<std::map<std::string, std::string>>()) {
      if (whole.emplace(file, hash).first->second == hash) continue;
      fail(Fault::bad_recipe,
           "the ranks see different models: {} of {} is not the same on rank {} as on a lower one; give every machine "
           "the same directory",
           file, model.path().string(), rank);
    }
  }
  return sha256_hex(nlohmann::json(whole).dump());
}

}  // namespace drover
