// config.json. What is taken is written, and reads back as the same.
#include "model/config.h"
#include "tests/fuzz/fuzz.h"

using namespace drover;

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  return fuzz::accept({Fault::bad_data}, [&] {
    const ModelConfig config = parse_model_config(std::string(fuzz::text_of(data, size)), "config.json");
    fuzz::holds(parameter_count(config) > 0, "a model has parameters");
    fuzz::holds(parse_model_config(write_model_config(config), "what was written") == config, "it reads back");
  });
}
