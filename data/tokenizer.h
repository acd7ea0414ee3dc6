// Text ↔ token ids, as Hugging Face `tokenizers` gives them: byte-level BPE from tokenizer.json, or from Meta's
// tokenizer.model. Immutable and safe to share between threads. Ids of special tokens come from `special` and
// `encode_special` only: no text given to `encode` yields one.
#pragma once
#include <array>
#include <cstdint>
#include <map>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "data/bpe.h"
#include "data/pre_tokenizer.h"
#include "kernels/base/file.h"

namespace drover {

class Tokenizer {
 public:
  // missing_input when the directory holds neither file; bad_data for damaged ones and for tokenizers of other kinds,
  // naming what is not supported.
  static Tokenizer open(const fs::path& directory);

  // bad_data where the text is not UTF-8, naming the byte. No BOS is added. `begins`, where given, receives for every
  // id the offset of its first byte.
  std::vector<int32_t> encode(std::string_view text, std::vector<size_t>* begins = nullptr) const;
  std::vector<int32_t> encode_special(std::string_view text) const;  // spellings of special tokens become their ids
  struct Range {
    size_t begin = 0, end = 0;  // bytes [begin, end)
  };
  // A rendered dialog: special tokens are looked for within `written` (in order, apart from each other), nowhere else.
  std::vector<int32_t> encode_rendered(std::string_view text, std::span<const Range> written,
                                       std::vector<size_t>& begins) const;
  // What is not UTF-8 becomes U+FFFD. Ids outside the vocabulary (a model's padding rows) are nothing.
  std::string decode(std::span<const int32_t> ids, bool skip_special = true) const;

  bool adds_bos() const { return adds_bos_; }  // whether plain text starts with BOS; if so, bos() is there
  std::optional<int32_t> bos() const { return bos_; }
  std::optional<int32_t> eos() const {
    return eos_;
  }  // as the tokenizer's files say; what ends an answer is the model's business
  std::optional<int32_t> special(const std::string& spelling) const;
  bool is_special(int32_t id) const { return special_by_id_.count(id) != 0; }
  const std::string& raw_bytes(int32_t id) const;  // may be part of a character; empty outside the vocabulary
  int64_t vocab_size() const { return static_cast<int64_t>(bytes_.size()); }  // the largest id + 1
  const std::string& fingerprint() const { return fingerprint_; }             // SHA-256 of the files that define it

 private:
  struct Added {  // found in the text before it is split into words
    std::string spelling;
    int32_t id = 0;
    bool special = true;
    bool normalized = false;  // belongs to the second round
  };
  struct Definition {                                     // what a file says
    std::vector<std::pair<std::string, int32_t>> tokens;  // (bytes, id)
    std::vector<Bpe::Merge> merges;
    bool whole_first = false;
    PreTokenizer::Kind kind = PreTokenizer::Kind::llama3;
    std::vector<Added> added;
    std::optional<int32_t> bos, eos;
    bool adds_bos = false;
  };
  class JsonReader;
  static Definition read_json(const fs::path& file, const std::string& text);
  static Definition read_ranks(const fs::path& file, const std::string& text);
  explicit Tokenizer(const Definition& definition);

  // The first table's spellings are looked for first, the second's in what lies between them; within a place the
  // longest spelling.
  using AddedByFirstByte = std::array<std::vector<Added>, 256>;
  using Rounds = std::array<AddedByFirstByte, 2>;
  struct Output {
    std::vector<int32_t>& ids;
    std::vector<size_t>* begins;       // may be null
    std::span<const Range> written{};  // where special tokens may stand, if `limited`
    bool limited = false;
  };
  void encode_plain(std::string_view text, size_t offset, const Output& out) const;
  void encode_around(const Rounds& rounds, size_t round, std::string_view text, size_t offset, const Output& out) const;
  void read_config(const fs::path& file, const std::string& text);

  Bpe bpe_;
  PreTokenizer pre_;
  std::vector<std::string> bytes_;  // by id
  Rounds ordinary_, all_;           // added tokens without and with the special ones
  std::map<int32_t, std::string> special_by_id_;
  std::unordered_map<std::string, int32_t> special_by_spelling_;
  bool adds_bos_ = false;
  std::optional<int32_t> bos_, eos_;
  std::string fingerprint_;
};

// Decodes a growing sequence for display: text appears only once its UTF-8 characters are whole. Special tokens are not
// shown.
class StreamDecoder {
 public:
  explicit StreamDecoder(const Tokenizer& tokenizer) : tokenizer_(tokenizer) {}
  std::string push(int32_t id);  // the text that is now certain
  std::string finish();          // what was held back

 private:
  const Tokenizer& tokenizer_;
  std::string pending_;
};

}  // namespace drover
