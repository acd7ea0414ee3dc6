// The prepared data: documents of token ids with their trained mask, and rows of documents, in one HDF5 file that is
// rebuilt when anything that shaped it changes (its identity). Its tokens, 5 bytes each, are mapped, so that the
// processes of a machine share them; what is known of documents and rows is loaded, 40 bytes a document. Behind the
// HDF5 data stands the SHA-256 of it, which is verified first.
#pragma once
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "data/token_columns.h"
#include "kernels/base/file.h"

namespace drover {

namespace hdf5 {
class File;
}

// Where a document comes from: a row of the data, over all sources, and its source. Pieces of a long text share both.
struct Origin {
  int64_t row = 0;
  int32_t source = 0;
  bool operator==(const Origin&) const = default;
};

struct Document {  // its spans are there until the next document is added
  std::span<const int32_t> ids;
  std::span<const uint8_t> trained;  // per token: it is a target (never the first of a document)
  float weight = 1;
  int64_t ordinal = 0;
  Origin origin = {};
};

class TokenStore {
 public:
  TokenStore() : columns_(std::make_shared<TokenColumns>()) {}
  // Whose tokens lie in a temporary file of this directory while documents are added.
  static TokenStore made_in(const fs::path& directory);
  static TokenStore open(const fs::path& file);  // bad_data when it is not a whole store of this version
  static bool matches(const fs::path& file, const std::string& identity);  // exists, opens and has this identity
  void save(const fs::path& file) const;                                   // atomically

  int64_t rows() const { return static_cast<int64_t>(row_begin_.size()) - 1; }
  int64_t documents() const { return static_cast<int64_t>(entries_.size()); }
  int64_t tokens() const { return tokens_; }
  Document document(int64_t ordinal) const;
  // Documents [first, last) of a row.
  std::pair<int64_t, int64_t> row(int64_t index) const {
    return {row_begin_[static_cast<size_t>(index)], row_begin_[static_cast<size_t>(index) + 1]};
  }
  int64_t row_tokens(int64_t index) const;
  int64_t trained_tokens(int64_t first_document, int64_t last_document) const;
  int64_t longest_document() const;
  void each_document(const std::function<void(const Document&)>& use) const;  // in order
  const std::string& identity() const { return identity_; }

  // How often the rows of each source come in an epoch; empty: all once.
  const std::vector<double>& repeats() const { return repeats_; }
  // What was said about the data when it was read, to be said again; lines.
  const std::string& notes() const { return notes_; }
  const std::string& formats() const { return formats_; }  // for people

  // Building. Without an origin a document is a row of its own, of the first source.
  void add_document(std::span<const int32_t> ids, std::span<const uint8_t> trained, float weight,
                    std::optional<Origin> origin = {});
  // Of this store's tokens, these documents of it, in this order; without rows and identity.
  TokenStore with_documents(std::span<const int64_t> ordinals) const;
  // Puts documents into rows: one each, or packed first-fit in file order into rows of at most max_length tokens, in
  // whose order they then are. Where sources do not all come once, a row holds documents of one source, and sources
  // follow each other.
  void make_rows(bool packing, int64_t max_length);
  void set_identity(std::string identity) { identity_ = std::move(identity); }
  void set_repeats(std::vector<double> repeats);
  void set_notes(std::string formats, std::string notes) { formats_ = std::move(formats), notes_ = std::move(notes); }

 private:
  struct Entry {                  // of a document
    int64_t begin = 0, size = 0;  // in the columns
    float weight = 1;
    Origin origin;
  };
  void add_entry(const Entry& entry);
  void write_tokens(hdf5::File& file) const;
  void write_documents(hdf5::File& file) const;
  std::shared_ptr<TokenColumns> columns_;  // of those that were taken from one store
  std::vector<Entry> entries_;
  int64_t tokens_ = 0;
  std::vector<int64_t> row_begin_ = {0};
  std::vector<double> repeats_;
  std::string identity_, formats_, notes_;
};

}  // namespace drover
