// A string whose every byte knows where it came from: the template itself, or a field of a message. Whatever a template
// does with it (cuts, joins, replaces), the origins stay, so that what is trained and what may be a control token are
// known from the rendered text. Positions are bytes; text is UTF-8.
#pragma once
#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace drover::jinja {

struct Origin {
  enum class Source : uint8_t {
    written,  // by the template: may be a control token
    outside,  // tools, documents, a date
    label,    // a message's role, name or id
    content,  // what a message says
    call,     // what a message calls
  };
  Source source = Source::written;
  int32_t message = -1;    // which, for label, content and call
  bool generated = false;  // in a {% generation %} block
  bool operator==(const Origin&) const = default;
};

class Text {
 public:
  struct Run {
    size_t end;  // of neighbouring bytes of one origin
    Origin origin;
  };

  Text() = default;
  explicit Text(std::string_view bytes, const Origin& origin = {}) { append(bytes, origin); }

  void append(std::string_view bytes, const Origin& origin);
  void append(const Text& other);
  Text slice(size_t begin, size_t end) const;
  void mark_generated();  // all of it
  // What the filter `safe` makes: what is added to such a text becomes HTML. Slices stay so.
  void mark_safe() { safe_ = true; }
  bool safe() const { return safe_; }

  const std::string& bytes() const { return bytes_; }
  size_t size() const { return bytes_.size(); }
  const std::vector<Run>& runs() const { return runs_; }
  const Origin& origin_at(size_t byte) const;  // of a byte that is there

 private:
  std::string bytes_;
  std::vector<Run> runs_;
  bool safe_ = false;
};

// The offsets of the characters of valid UTF-8, and behind them its size.
std::vector<size_t> characters(std::string_view text);

}  // namespace drover::jinja
