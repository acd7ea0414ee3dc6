#include "trainer/generation/manner.h"

#include "kernels/base/error.h"
#include "trainer/export/text_files.h"
#include "trainer/setup/inputs.h"

namespace drover {

namespace {

constexpr const char* kProbe =
    "It's 7 o'clock; they'LL take 1234567 parcels…\n\n\tif (x != 0) {  return -3.5e10;  }\r\n   Größe, façade, naïve "
    "Übung. Привет, как дела? 你好，世界。 日本語のテスト 한국어 नमस्ते สวัสดี שלום مرحبا "
    "👩‍🚀🎉 "
    "http://a.b/c?d=e&f=%20_g_ ";

// Whether texts and tokens mean the same to both. Programs that save a tokenizer write its files in forms of their own,
// and a chat template may stand in them.
bool same_tokens(const Tokenizer& a, const Tokenizer& b) {
  if (a.fingerprint() == b.fingerprint()) return true;
  if (a.vocab_size() != b.vocab_size() || a.before() != b.before() || a.after() != b.after()) return false;
  for (int32_t id = 0; id < a.vocab_size(); ++id) {
    if (a.is_special(id) != b.is_special(id) || a.raw_bytes(id) != b.raw_bytes(id)) return false;
  }
  return a.encode(kProbe) == b.encode(kProbe);
}

}  // namespace

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
  if (take_tokenizer(own, directory) && !same_tokens(Tokenizer::open(tokenizer_directory(own)), base.tokenizer)) {
    fail(Fault::bad_data,
         "--adapter {}: {} has another tokenizer than the others; ask it alone (--adapter DIR), or name one for all "
         "(model.tokenizer=DIR)",
         name, directory.string());
  }
  return manner_of({own, base.model, base.tokenizer, base.dialogs}, directory);
}

}  // namespace drover
