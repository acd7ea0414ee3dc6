// Ids back to text, as the decoder of a tokenizer.json says.
#pragma once
#include <cstdint>
#include <string>
#include <unordered_map>
#include <utility>
#include <vector>

namespace drover {

struct DecoderRule {
  enum class Kind {
    byte_level,  // ByteLevel: tokens are bytes, some of them parts of characters
    marked,      // Replace, ByteFallback, Fuse, Strip: marks are spaces, <0x00> to <0xFF> bytes
    metaspace,   // Metaspace: marks are spaces, and nothing in the first token
  };
  Kind kind = Kind::byte_level;
  std::string mark = "▁", space = " ";  // marked, metaspace: what is replaced in a token, and by what
  size_t strip = 0;                     // marked: so many spaces at the front of the text are not shown
  bool first_marks = false;             // metaspace: the first token's marks are spaces too
};

class TokenTexts {
 public:
  TokenTexts() = default;
  explicit TokenTexts(DecoderRule rule) : rule_(std::move(rule)) {}
  // `content`: the token's bytes (byte_level) or its spelling.
  void set(int32_t id, const std::string& content);

  int64_t size() const { return static_cast<int64_t>(bytes_.size()); }  // the largest id + 1
  const std::string& bytes(int32_t id) const;                           // empty where there is no such token
  const std::string& bytes_as_first(int32_t id) const;                  // the same of a text's first token
  bool is_byte(int32_t id) const;                                       // one of those that bytes fall back to
  const DecoderRule& rule() const { return rule_; }

 private:
  DecoderRule rule_;
  std::vector<std::string> bytes_;  // by id
  std::vector<bool> is_byte_;
  std::unordered_map<int32_t, std::string> as_first_;  // where they differ
};

// The text of a growing sequence of ids.
class TextBuilder {
 public:
  // `whole`: all ids come before the first text is shown. A run of bytes that is no text is then U+FFFD for each of
  // them, as in Hugging Face's; else what of it was shown before stays.
  TextBuilder(const TokenTexts& texts, bool whole) : texts_(texts), whole_(whole) {}
  std::string push(int32_t id);  // the text that is now certain
  std::string finish();          // what was held back

 private:
  std::string flush();
  std::string shown(std::string text);

  const TokenTexts& texts_;
  bool whole_, first_ = true;
  std::string pending_;      // bytes of a character, or of a run, that is not finished
  size_t stripped_ = 0;      // spaces at the front that were not shown
  bool past_front_ = false;  // text was shown
};

}  // namespace drover
