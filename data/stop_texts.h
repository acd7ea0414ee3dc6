// Ends an answer where one of some texts appears in it, also when the text spans tokens or ends within one.
#pragma once
#include "data/tokenizer.h"

namespace drover {

// One answer's text as it grows. Texts are looked for in what is shown: special tokens are not, and a character counts
// once all its bytes are there.
class StopTexts {
 public:
  StopTexts(const Tokenizer& tokenizer, const std::vector<std::string>& texts) : stream_(tokenizer), texts_(texts) {}

  // True from the token on that completes one of the texts.
  bool push(int32_t id);
  bool found() const { return found_; }
  const std::string& text() const { return text_; }  // where found: up to the first of the texts, without it

 private:
  StreamDecoder stream_;
  const std::vector<std::string>& texts_;
  std::string text_;
  bool found_ = false;
};

}  // namespace drover
