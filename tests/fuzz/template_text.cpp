// A template's own text: chat_template.jinja.
#include "tests/fuzz/dialog.h"

using namespace drover;

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  fuzz::written("chat_template.jinja", fuzz::text_of(data, size));
  return fuzz::accept({Fault::bad_data}, fuzz::render_dialogs);
}
