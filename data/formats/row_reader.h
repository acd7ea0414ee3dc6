// One row of JSON as a Row, of the format that is asked for, or of the one that the first row has.
#pragma once
#include <string_view>

#include "data/formats/formats.h"

namespace drover {

class RowReader {
 public:
  explicit RowReader(RowFormat format = RowFormat::automatic, FieldNames fields = {});

  // Nothing for a row that is only {"error": …}. std::exception or Fault::bad_data saying what is wrong with the text,
  // which is valid UTF-8; a row of another format than the first, where that decides, is wrong too.
  std::optional<Row> read(std::string_view json);
  Row text_file(std::string text);  // a whole file that is one text

  RowFormat asked() const { return asked_; }
  RowFormat format() const { return format_; }          // automatic: no row has shown it yet
  bool met(size_t field) const { return met_[field]; }  // some row had the file's name of fields()[field]

 private:
  OrderedJson renamed(OrderedJson row, std::vector<std::string>& unread);
  void check_format(const OrderedJson& row);
  RowFormat asked_, format_;
  FieldNames fields_;
  std::vector<bool> met_;
};

}  // namespace drover
