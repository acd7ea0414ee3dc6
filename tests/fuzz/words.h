// What a tokenizer must give for some words, whatever its files say.
#pragma once
#include "data/tokenizer.h"
#include "tests/fuzz/fuzz.h"

namespace drover::fuzz {

inline void use(const Tokenizer& tokenizer) {
  constexpr std::string_view words =
      "The harbour's 1234 lorries,\r\n\tété, 日本 \xF0\x9F\x9A\x9A  <|s0|>the <lr> end x\xE2\x96\x81<|im_end|>";
  std::vector<size_t> begins;
  std::vector<int32_t> ids = tokenizer.encode(words, &begins);
  holds(ids.size() == begins.size(), "every id has its first byte");
  holds(std::is_sorted(begins.begin(), begins.end()), "ids come in the order of the text");
  const std::vector<int32_t> special = tokenizer.encode_special(words);
  StreamDecoder stream(tokenizer);
  std::string streamed;
  for (const int32_t id : ids) {
    holds(id >= 0 && id < tokenizer.vocab_size(), "an id lies in the vocabulary");
    holds(!tokenizer.is_special(id) || id == tokenizer.unknown(), "no text gives a special token");
    streamed += stream.push(id);
  }
  const std::string text = tokenizer.decode(ids);
  // Bytes that stand for no character may have been shown in part.
  holds(streamed + stream.finish() == text || text.find("\uFFFD") != std::string::npos,
        "a stream decodes to the same text");
  holds(tokenizer.encode_document(words).size() == ids.size() + tokenizer.before().size() + tokenizer.after().size(),
        "a document is its text in a frame");
  for (const int32_t id : special) holds(id >= 0 && id < tokenizer.vocab_size(), "an id lies in the vocabulary");
  ids.insert(ids.end(), {-1, static_cast<int32_t>(tokenizer.vocab_size())});
  tokenizer.decode(ids, false);
}

}  // namespace drover::fuzz
