// adapter_config.json, and which modules it means. What is taken is written, and means the same.
#include "model/files/adapter_config.h"

#include "tests/fuzz/fuzz.h"

using namespace drover;

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  return fuzz::accept({Fault::bad_data}, [&] {
    const AdapterConfig config = parse_adapter_config(std::string(fuzz::text_of(data, size)), "adapter_config.json");
    const std::string text = write_adapter_config(config);
    const AdapterConfig again = parse_adapter_config(text, "what was written");
    fuzz::holds(write_adapter_config(again) == text, "it reads back");
    const AdapterMatcher one(config), other(again);
    for (const char* path : {"model.layers.0.self_attn.q_proj", "model.layers.11.self_attn.v_proj",
                             "model.layers.3.mlp.down_proj", "lm_head"}) {
      const auto a = one.match(path), b = other.match(path);
      fuzz::holds(a.has_value() == b.has_value(), "the same modules are meant");
      if (a) fuzz::holds(a->r == b->r && a->alpha == b->alpha && a->scale == b->scale, "by the same factors");
    }
  });
}
