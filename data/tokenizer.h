// Text ↔ token ids, as Hugging Face `tokenizers` gives them: byte-level BPE from tokenizer.json, or from Meta's tokenizer.model.
// Immutable and safe to share. Ids of special tokens come from `special` and `encode_special` only: no text that goes through `encode` yields one.
#pragma once
#include <cstdint>
#include <map>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "data/bpe.h"
#include "data/pre_tokenizer.h"
#include "kernels/base/file.h"

namespace drover {

class Tokenizer {
 public:
  // 66 when the directory holds neither file; 65 for tokenizers of other kinds, naming what is not supported.
  static Tokenizer open(const fs::path& directory);

  std::vector<int32_t> encode(std::string_view text) const;          // 65 where the text is not UTF-8
  std::vector<int32_t> encode_special(std::string_view text) const;  // spellings of special tokens become their ids
  std::string decode(std::span<const int32_t> ids, bool skip_special = true) const;

  bool adds_bos() const { return adds_bos_; }  // whether plain text starts with BOS
  std::optional<int32_t> bos() const { return bos_; }
  std::optional<int32_t> special(const std::string& spelling) const;
  bool is_special(int32_t id) const { return special_ids_.count(id) != 0; }
  const std::string& raw_bytes(int32_t id) const { return bytes_[static_cast<size_t>(id)]; }
  int64_t vocab_size() const { return static_cast<int64_t>(bytes_.size()); }
  const std::string& fingerprint() const { return fingerprint_; }  // SHA-256 of the file that defines it

 private:
  Tokenizer(Bpe bpe, PreTokenizer pre) : bpe_(std::move(bpe)), pre_(std::move(pre)) {}
  static Tokenizer from_json(const fs::path& file);
  static Tokenizer from_ranks(const fs::path& file);
  void encode_plain(std::string_view text, std::vector<int32_t>& ids) const;
  void encode_added(std::string_view text, bool specials, std::vector<int32_t>& ids) const;
  void read_tokenizer_config(const fs::path& directory);

  struct Added {
    std::string spelling;
    int32_t id = 0;
    bool special = true;
  };
  Bpe bpe_;
  PreTokenizer pre_;
  std::vector<std::string> bytes_;           // by id
  std::vector<Added> added_;                 // longest spelling first
  std::map<int32_t, std::string> special_ids_;
  bool adds_bos_ = false;
  std::optional<int32_t> bos_;
  std::string fingerprint_;
};

// Decodes a growing sequence for display: text appears only once its UTF-8 characters are whole.
class StreamDecoder {
 public:
  explicit StreamDecoder(const Tokenizer& tokenizer) : tokenizer_(tokenizer) {}
  std::string push(int32_t id);
  std::string finish();

 private:
  const Tokenizer& tokenizer_;
  std::string pending_;
};

}  // namespace drover
