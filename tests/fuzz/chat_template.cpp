// The chat template in tokenizer_config.json.
#include "tests/fuzz/dialog.h"

using namespace drover;

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  fuzz::written("tokenizer_config.json", fuzz::text_of(data, size));
  return fuzz::accept({Fault::bad_data}, fuzz::render_dialogs);
}
