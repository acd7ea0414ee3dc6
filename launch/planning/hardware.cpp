#include "launch/planning/hardware.h"

#include <algorithm>

#include "kernels/base/error.h"

namespace drover {

extern const char* const kHardwareText;  // configs/planning/hardware.yaml, by CMakeLists.txt

namespace {

constexpr Cautious kSmaller = Cautious::smaller, kLarger = Cautious::larger;

struct Key {
  const char* name;
  double Machine::*figure;
  Cautious cautious;
};

constexpr Key kKeys[] = {
    {"memory_bytes", &Machine::memory_bytes, kSmaller},
    {"bf16_peak_flops_per_second", &Machine::bf16_peak_flops_per_second, kSmaller},
    {"fp8_peak_flops_per_second", &Machine::fp8_peak_flops_per_second, kSmaller},
    {"bf16_linear_flops_per_second", &Machine::bf16_linear_flops_per_second, kSmaller},
    {"fp8_linear_flops_per_second", &Machine::fp8_linear_flops_per_second, kSmaller},
    {"attention_forward_flops_per_second", &Machine::attention_forward_flops_per_second, kSmaller},
    {"attention_backward_flops_per_second", &Machine::attention_backward_flops_per_second, kSmaller},
    {"memory_bytes_per_second", &Machine::memory_bytes_per_second, kSmaller},
    {"host_memory_bytes", &Machine::host_memory_bytes, kSmaller},
    {"host_link_bytes_per_second", &Machine::host_link_bytes_per_second, kSmaller},
    {"node_link_bytes_per_second", &Machine::node_link_bytes_per_second, kSmaller},
    {"node_link_seconds", &Machine::node_link_seconds, kLarger},
    {"network_bytes_per_second", &Machine::network_bytes_per_second, kSmaller},
    {"network_seconds", &Machine::network_seconds, kLarger},
    {"gpu_watts", &Machine::gpu_watts, kLarger},
    {"node_watts", &Machine::node_watts, kLarger},
    {"gpu_hour_dollars", &Machine::gpu_hour_dollars, kLarger},
};

RecipeDocument empty_document() {
  RecipeDocument document;
  document.kind = {.name = "table of machines",
                   .sections = "GPUs, such as h100:, with their figures below",
                   .least = "it needs at least one GPU",
                   .most_values = 10'000};
  return document;
}

Machine read_machine(RecipeDocument& document, const std::string& name) {
  FieldReader fields(document, name);
  Machine result;
  result.name = name;
  result.full_name = fields.text("full_name");
  result.supported = fields.flag("supported");
  result.gpus_a_node = fields.whole_above_zero("gpus_a_node");
  std::vector<std::string> known = {"full_name", "supported", "gpus_a_node"};
  for (const Key& key : kKeys) {
    known.emplace_back(key.name);
    const Figure figure = fields.figure(key.name, key.cautious);
    result.*key.figure = figure.value;
    result.cited.push_back({key.name, figure});
  }
  fields.finish(known);
  return result;
}

Hardware read_document(RecipeDocument document) {
  Hardware result;
  result.where = document.file;
  for (const std::string& name : sections_of(document)) result.machines.push_back(read_machine(document, name));
  document.fail_if_wrong(fmt::format("the table of machines {}", document.file));
  return result;
}

}  // namespace

const Hardware& shipped_hardware() {
  static const Hardware table = parse_hardware("configs/planning/hardware.yaml", kHardwareText);
  return table;
}

Hardware read_hardware(const fs::path& file) {
  RecipeDocument document = empty_document();
  document.read(file);
  return read_document(std::move(document));
}

Hardware parse_hardware(const std::string& where, const std::string& text) {
  RecipeDocument document = empty_document();
  document.parse(where, text);
  return read_document(std::move(document));
}

const Machine& machine(const Hardware& hardware, std::string_view name) {
  const auto found = std::ranges::find(hardware.machines, name, &Machine::name);
  if (found != hardware.machines.end()) return *found;
  std::vector<std::string> names;
  for (const Machine& m : hardware.machines) names.push_back(m.name);
  fail(Fault::usage, "{} knows no GPU \"{}\"; it has {}", hardware.where, shown(std::string(name)),
       fmt::join(names, ", "));
}

}  // namespace drover
