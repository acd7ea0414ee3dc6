// Keeps an answer UTF-8. Tokens may be parts of characters, and a grammar's sets of characters leave bytes through that
// are no UTF-8 (surrogates, overlong forms).
#pragma once
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace drover {

class WholeCharacters {
 public:
  explicit WholeCharacters(const std::vector<std::string>& tokens);

  // Takes away what cannot follow `pending`, the bytes of a character that is not whole yet.
  void narrow(const std::string& pending, std::span<uint32_t> bits) const;

  // What is pending after the bytes; nothing where they can be no part of UTF-8.
  static std::optional<std::string> pending_after(std::string_view bytes);

 private:
  struct Part {
    size_t token;
    std::string bytes;
  };
  std::vector<Part> parts_;  // tokens that are not UTF-8 by themselves
};

}  // namespace drover
