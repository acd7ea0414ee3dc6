#include "data/raw_rows.h"

#include <algorithm>

#include "kernels/base/error.h"

namespace drover {

namespace {

constexpr std::string_view kWhite = " \t\r\n";

class ListReader {
 public:
  ListReader(const fs::path& file, std::string_view text) : file_(file), text_(text) {}

  void read(const std::function<void(const RawRow&)>& use) {
    skip_white();
    open_line_ = line_;
    ++at_;  // [
    skip_white();
    if (at_ < text_.size() && text_[at_] == ']') return finish();
    for (int64_t element = 1;; ++element) {
      skip_white();
      const size_t begin = at_;
      const int64_t line = line_;
      skip_element(element, line);
      std::string_view row = text_.substr(begin, at_ - begin);
      row = row.substr(0, row.find_last_not_of(kWhite) + 1);
      use({row, line, element});
      if (text_[at_] == ']') return finish();
      ++at_;  // the comma
    }
  }

 private:
  void advance() { line_ += text_[at_++] == '\n' ? 1 : 0; }
  void skip_white() {
    while (at_ < text_.size() && kWhite.find(text_[at_]) != std::string_view::npos) advance();
  }

  // To the comma or bracket behind it.
  void skip_element(int64_t element, int64_t line) {
    int64_t depth = 0;
    bool quoted = false;
    for (; at_ < text_.size(); advance()) {
      const char c = text_[at_];
      if (quoted) {
        if (c == '\\' && at_ + 1 < text_.size()) advance();
        if (c == '"') quoted = false;
      } else if (c == '"') {
        quoted = true;
      } else if (depth <= 0 && (c == ',' || c == ']')) {
        return;
      } else if (c == '{' || c == '[') {
        ++depth;
      } else if (c == '}' || c == ']') {
        --depth;
      }
    }
    fail(Fault::bad_data,
         "{}:{}: element {} of the list, which begins here, does not end, nor does the list of line {}; is the file "
         "cut off, or a quote or bracket missing?",
         file_.string(), line, element, open_line_);
  }

  void finish() {
    ++at_;
    skip_white();
    if (at_ == text_.size()) return;
    fail(Fault::bad_data, "{}:{}: more follows the end of the list; a file is one list of rows, or a row a line",
         file_.string(), line_);
  }

  const fs::path& file_;
  std::string_view text_;
  size_t at_ = 0;
  int64_t line_ = 1, open_line_ = 1;
};

}  // namespace

void for_each_raw_row(const fs::path& file, std::string_view text, const std::function<void(const RawRow&)>& use) {
  const size_t first = text.find_first_not_of(kWhite);
  if (first != std::string_view::npos && text[first] == '[') return ListReader(file, text).read(use);
  for (int64_t number = 1; !text.empty(); ++number) {
    const size_t end = std::min(text.find('\n'), text.size());
    std::string_view line = text.substr(0, end);
    text.remove_prefix(std::min(end + 1, text.size()));
    const size_t begin = line.find_first_not_of(kWhite);
    if (begin == std::string_view::npos) continue;
    if (line.ends_with('\r')) line.remove_suffix(1);
    use({line, number});
  }
}

}  // namespace drover
