// A template's own text: chat_template.jinja, and its canonical spelling.
#include "data/template_text.h"

#include "tests/fuzz/dialog.h"

using namespace drover;

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  canonical_template(std::string(fuzz::text_of(data, size)));
  fuzz::written("chat_template.jinja", fuzz::text_of(data, size));
  return fuzz::accept({Fault::bad_data}, fuzz::render_dialogs);
}
