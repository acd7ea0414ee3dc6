// Text ↔ token ids, as Hugging Face `tokenizers` gives them: BPE over bytes (Llama 3) or over characters with marks for
// spaces (Llama 2) from tokenizer.json, or over bytes from Meta's tokenizer.model. Immutable and safe to share between
// threads. Ids of special tokens come from `special`, `encode_special` and a document's frame only: no text given to
// `encode` yields one, but for the unknown token.
#pragma once
#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "data/added_tokens.h"
#include "data/token_texts.h"
#include "data/words.h"
#include "kernels/base/file.h"

namespace drover {

class Tokenizer {
 public:
  // missing_input when the directory holds neither file; bad_data for damaged ones and for tokenizers of other kinds,
  // naming what is not supported.
  static Tokenizer open(const fs::path& directory);

  // bad_data where the text is not UTF-8, naming the byte. No BOS is added. `begins`, where given, receives for every
  // id the offset of its first byte: of an added token's spelling, without white space that it takes with it.
  std::vector<int32_t> encode(std::string_view text, std::vector<size_t>* begins = nullptr) const;
  std::vector<int32_t> encode_special(std::string_view text) const;  // spellings of special tokens become their ids
  // The same ids as `encode` in the frame that the tokenizer puts around a whole text: a BOS, an EOS, both, others.
  std::vector<int32_t> encode_document(std::string_view text) const;
  struct Range {
    size_t begin = 0, end = 0;  // bytes [begin, end)
  };
  // A rendered dialog: special tokens are looked for within `written` (in order, apart from each other), nowhere else.
  std::vector<int32_t> encode_rendered(std::string_view text, std::span<const Range> written,
                                       std::vector<size_t>& begins) const;
  // What is not UTF-8 becomes U+FFFD. Ids outside the vocabulary (a model's padding rows) are nothing.
  std::string decode(std::span<const int32_t> ids, bool skip_special = true) const;

  const std::vector<int32_t>& before() const { return before_; }  // a document's frame
  const std::vector<int32_t>& after() const { return after_; }
  bool adds_bos() const { return bos_ && !before_.empty() && before_.front() == *bos_; }
  std::optional<int32_t> bos() const { return bos_; }
  std::optional<int32_t> eos() const {
    return eos_;
  }  // as the tokenizer's files say; what ends an answer is the model's business
  std::optional<int32_t> special(const std::string& spelling) const;
  bool is_special(int32_t id) const { return special_by_id_.count(id) != 0; }
  std::optional<int32_t> unknown() const { return unknown_; }  // what text without a token becomes, where it has one
  const std::string& raw_bytes(int32_t id) const { return texts_.bytes(id); }  // may be part of a character
  int64_t vocab_size() const { return texts_.size(); }                         // the largest id + 1
  const std::string& fingerprint() const { return fingerprint_; }              // SHA-256 of the files that define it

 private:
  friend class StreamDecoder;
  struct Config {                              // tokenizer_config.json, as far as it is read
    std::map<std::string, std::string> named;  // by key: bos_token, eos_token, …
    std::vector<AddedToken> added;             // added_tokens_decoder
    std::vector<std::string> specials;         // additional_special_tokens, extra_special_tokens
    // What transformers obeys only where there is no tokenizer.json: that has its post_processor, or adds nothing.
    std::optional<bool> adds_bos, adds_eos;
    std::string tokenizer_class;  // transformers'
  };
  struct Definition {  // what the files say
    std::unique_ptr<const Words> words;
    TokenTexts texts;
    std::vector<AddedToken> added;
    std::optional<int32_t> bos, eos, unknown;
    std::vector<int32_t> before, after;
    bool marks_every_part = false;  // also what follows a control token begins with a mark for a space
  };
  class JsonReader;
  static Config read_config(const fs::path& file, const std::string& text);
  static Definition read_json(const fs::path& file, const std::string& text, const Config& config);
  static Definition read_ranks(const fs::path& file, const std::string& text, const Config& config);
  explicit Tokenizer(Definition definition);
  void warn_about(const Config& config, const fs::path& file) const;  // where it asks for other ids

  struct Output {
    enum class Specials { text, everywhere, within };
    std::vector<int32_t>& ids;
    std::vector<size_t>* begins;  // may be null
    Specials specials = Specials::text;
    std::span<const Range> written{};  // where they may stand, if `within`
  };
  // Round 0: added tokens as they are; round 1: those that are looked for in normalized text; then words.
  void encode_around(size_t round, const Stretch& stretch, const Output& out) const;

  std::unique_ptr<const Words> words_;
  TokenTexts texts_;
  AddedTokens rounds_[2];
  std::map<int32_t, std::string> special_by_id_;
  std::unordered_map<std::string, int32_t> special_by_spelling_;
  std::optional<int32_t> bos_, eos_, unknown_;
  std::vector<int32_t> before_, after_;
  bool marks_every_part_ = false;
  std::string fingerprint_;
};

// Decodes a growing sequence for display: text appears only once its UTF-8 characters are whole.
class StreamDecoder {
 public:
  explicit StreamDecoder(const Tokenizer& tokenizer, bool skip_special = true)
      : tokenizer_(tokenizer), skip_special_(skip_special), text_(tokenizer.texts_, false) {}
  std::string push(int32_t id) {  // the text that is now certain
    return skip_special_ && tokenizer_.is_special(id) ? std::string() : text_.push(id);
  }
  std::string finish() { return text_.finish(); }  // what was held back

 private:
  const Tokenizer& tokenizer_;
  bool skip_special_;
  TextBuilder text_;
};

}  // namespace drover
