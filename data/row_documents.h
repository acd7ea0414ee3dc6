// A row of data as documents of a token store: rendered, tokenised, cut or split to length.
#pragma once
#include "data/formats/row.h"
#include "data/prepare.h"
#include "data/special_spellings.h"

namespace drover {

class RowDocuments {
 public:
  RowDocuments(const PrepareSettings& settings, const Tokenizer& tokenizer, TokenStore& store, PrepareReport& report);

  // Of settings.sources[source], from `file`. bad_data for a row that cannot be; bad_recipe where no row could.
  void add(const Row& row, int32_t source, const fs::path& file);

 private:
  struct Frame {
    std::vector<int32_t> before, after;
  };
  Frame missing_frame(const std::vector<int32_t>& ids) const;
  void check_template(const fs::path& file, int64_t line);
  void add_dialog(const Row& row);
  void add_completion(const Row& row);
  void add_text(const std::string& text);
  void add_ids(const Row& row);
  std::vector<int32_t> encoded(const std::string& text, std::vector<size_t>& begins) const;
  void keep_cut(std::vector<int32_t> ids, std::vector<uint8_t> trained);
  void keep_split(const std::vector<int32_t>& ids);
  void keep_whole(std::span<const int32_t> ids, std::span<const uint8_t> trained);
  void keep(std::span<const int32_t> ids, std::span<const uint8_t> trained);

  const PrepareSettings& settings_;
  const Tokenizer& tokenizer_;
  TokenStore& store_;
  PrepareReport& report_;
  SpecialSpellings spellings_;
  bool template_checked_ = false;
  Origin origin_{-1, 0};  // of the row that is being added
  float weight_ = 1;
};

}  // namespace drover
