// tokenizer.json and, behind a NUL, tokenizer_config.json.
#include "tests/fuzz/words.h"

using namespace drover;

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const auto [tokenizer, config] = fuzz::two_parts(data, size);
  fuzz::written("tokenizer.json", tokenizer);
  fs::remove(fuzz::folder() / "tokenizer_config.json");
  if (!config.empty()) fuzz::written("tokenizer_config.json", config);
  return fuzz::accept({Fault::bad_data}, [&] { fuzz::use(Tokenizer::open(fuzz::folder())); });
}
