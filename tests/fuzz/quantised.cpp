// What says how weights are quantised: config.json's quantization_config or hf_quant_config.json, and the state of an
// NF4 weight. An input that begins with "nf4" and a NUL is such a state.
#include "model/files/nf4_state.h"
#include "model/files/quantisation_config.h"
#include "tests/fuzz/fuzz.h"

using namespace drover;

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const auto [kind, state] = fuzz::two_parts(data, size);
  const std::string text(fuzz::text_of(data, size));
  return fuzz::accept({Fault::bad_data}, [&, &kind = kind, &state = state] {
    if (kind == "nf4") {
      const Nf4State read = parse_nf4_state(state, "state");
      fuzz::holds(read.rows > 0 && read.cols > 0 && read.cols % 64 == 0, "rows are whole blocks");
      fuzz::holds(read.rows * read.cols / read.cols == read.rows, "no size overflows");
      return;
    }
    const Json json = parse_json(text, "config.json");
    const bool older = json.is_object() && json.contains("quantization");
    if (!older && !json.is_object()) return;
    const auto read =
        older ? std::optional(parse_modelopt(json, "hf_quant_config.json")) : parse_quantisation(json, "config.json");
    if (!read) return;
    for (const char* module : {"model.layers.0.self_attn.q_proj", "model.layers.11.mlp.down_proj", "lm_head", ""}) {
      const QuantisationConfig::Group* group = read->group_of(module);
      fuzz::holds(group == nullptr || !read->keeps(module), "a module is quantised or kept");
      if (group == nullptr || !group->blocks) continue;
      fuzz::holds(group->blocks->rows >= 0 && group->blocks->columns >= 0, "blocks have a size");
    }
  });
}
