#include "trainer/setup/fp8_linears.h"

#include <map>

#include "kernels/base/error.h"
#include "trainer/engine/plan.h"
#include "trainer/setup/base_format.h"

namespace drover {

namespace {

struct Count {
  int64_t all = 0, fp8 = 0;
  std::map<std::string, int64_t> widened;  // held in fp8: layers by linear

  void add(const LinearGroup& group, std::initializer_list<const char*> names) {
    const Weight& weight = group.weight();
    const auto linears = static_cast<int64_t>(names.size());
    all += linears;
    if (weight.products() == Products::fp8) fp8 += linears;
    if (weight.format() != Format::fp8 || weight.products() == Products::fp8) return;
    for (const char* name : names) ++widened[name];
  }
  void add(const Block& block) {
    add(block.qkv, {"q_proj", "k_proj", "v_proj"});
    add(block.o, {"o_proj"});
    add(block.gate_up, {"gate_proj", "up_proj"});
    add(block.down, {"down_proj"});
  }
  std::string widened_text() const {
    std::vector<std::string> texts;
    for (const auto& [name, layers] : widened) texts.push_back(fmt::format("{} of {} layers", name, layers));
    return fmt::format("{}", fmt::join(texts, ", "));
  }
};

// All ranks of a stage multiply alike (FrozenLinear).
Count count_linears(const EngineSettings& settings, const MeshShape& shape) {
  Count count;
  for (int stage = 0; stage < shape.pp(); ++stage) {
    NoWeights nothing(settings.stored);
    const Replica replica(settings, count_device(settings.traits, shape, MeshPosition{{Axis::pp, stage}}), nothing,
                          kPlenty);
    for (const Block& block : replica.stage.blocks()) count.add(block);
  }
  return count;
}

}  // namespace

std::string fp8_linears(const EngineSettings& settings, const MeshShape& shape) {
  if (settings.products != Products::fp8) return {};
  const Count count = count_linears(settings, shape);
  if (count.fp8 == 0 && count.widened.empty()) {
    fail(Fault::bad_recipe,
         "train.matmul: fp8 multiplies frozen linears that are held in fp8, and this model's are held as {}; set "
         "model.weights: fp8, or leave train.matmul at bf16",
         base_format(settings));
  }
  constexpr const char* kTaken =
      "blocks of 128 × 128 that parallel.tp does not cut, or a scale a row or a tensor; rows and columns of a rank in "
      "multiples of 16";
  if (count.fp8 == 0) {
    fail(Fault::bad_recipe,
         "train.matmul: fp8 can multiply none of this model's linears in fp8 ({}): it takes {}; use another "
         "parallel.tp, "
         "or leave train.matmul at bf16",
         base_format(settings), kTaken);
  }
  std::string line = fmt::format("train.matmul: {} of {} frozen linears multiply in fp8", count.fp8, count.all);
  if (!count.widened.empty())
    line += fmt::format("; in train.dtype, as they are not {}: {}", kTaken, count.widened_text());
  return line;
}

}  // namespace drover
