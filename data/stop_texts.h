// Ends an answer where one of some texts appears in it, however the text comes in pieces: what may still be the
// beginning of one is held back.
#pragma once
#include <string>
#include <string_view>
#include <vector>

namespace drover {

// One answer's text as it grows. Of several texts the one that is complete first counts, and the longest of those that
// are complete at the same byte. The borders between pieces change nothing. Source: Knuth, Morris and Pratt 1977.
class StopTexts {
 public:
  // None of them may be empty.
  explicit StopTexts(const std::vector<std::string>& texts);

  // What is now certain to stand in front of every stop text; nothing once one was found. Takes time in proportion to
  // the piece and the number of texts.
  std::string push(std::string_view piece);
  std::string finish();  // what was held back
  bool found() const { return found_; }

 private:
  struct Text {
    std::string bytes;
    std::vector<size_t> border;  // [i]: the longest proper prefix that also ends bytes[0, i]
    size_t matched = 0;          // so many of the first bytes end what came so far
    void take(char byte);
  };
  std::vector<Text> texts_;
  std::string held_;
  bool found_ = false;
};

}  // namespace drover
