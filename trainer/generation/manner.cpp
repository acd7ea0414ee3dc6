#include "trainer/generation/manner.h"

#include "kernels/base/error.h"
#include "trainer/export/text_files.h"
#include "trainer/setup/inputs.h"

namespace drover {

Manner manner_of(const Speaker& s, const fs::path& directory) {
  Manner manner;
  if (s.dialogs) manner.chat = chat_template(s.recipe);
  ModelConfig config = s.model;
  add_stop_ids(directory, config);
  manner.stop_ids = stop_ids(manner.chat, s.tokenizer, config.eos);
  return manner;
}

Manner manner_of_adapter(const Speaker& base, const std::string& name, const fs::path& directory) {
  Recipe own = base.recipe;
  if (take_tokenizer(own, directory) &&
      Tokenizer::open(tokenizer_directory(own)).fingerprint() != base.tokenizer.fingerprint()) {
    fail(Fault::bad_data,
         "--adapter {}: {} has another tokenizer than the others; ask it alone (--adapter DIR), or name one for all "
         "(model.tokenizer=DIR)",
         name, directory.string());
  }
  return manner_of({own, base.model, base.tokenizer, base.dialogs}, directory);
}

}  // namespace drover
