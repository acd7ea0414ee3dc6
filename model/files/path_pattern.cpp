#define PCRE2_CODE_UNIT_WIDTH 8
#include "model/files/path_pattern.h"

#include <pcre2.h>

#include <charconv>

#include "kernels/base/error.h"
#include "kernels/base/json.h"

namespace drover {

struct PathPattern::Code {
  std::string where;
  pcre2_code* code = nullptr;
  pcre2_match_data* found = nullptr;
  pcre2_match_context* context = nullptr;
  ~Code() {
    pcre2_match_context_free(context);
    pcre2_match_data_free(found);
    pcre2_code_free(code);
  }
};

PathPattern::PathPattern(const std::string& pattern, const std::string& where) : code_(std::make_shared<Code>()) {
  code_->where = fmt::format("{}: the pattern \"{}\"", where, clipped(pattern));
  int error = 0;
  PCRE2_SIZE at = 0;
  code_->code = pcre2_compile(reinterpret_cast<PCRE2_SPTR>(pattern.data()), pattern.size(), PCRE2_UTF | PCRE2_UCP,
                              &error, &at, nullptr);
  if (code_->code == nullptr) {
    PCRE2_UCHAR message[160] = {};
    pcre2_get_error_message(error, message, sizeof message);
    fail(Fault::bad_data, "{} is not a regular expression (at character {}): {}", code_->where, at,
         reinterpret_cast<const char*>(message));
  }
  code_->found = pcre2_match_data_create_from_pattern(code_->code, nullptr);
  code_->context = pcre2_match_context_create(nullptr);
  pcre2_set_match_limit(code_->context, 1'000'000);
}

bool PathPattern::run(const std::string& text, bool to_end) const {
  const uint32_t options = PCRE2_ANCHORED | (to_end ? PCRE2_ENDANCHORED : 0u);
  const int count = pcre2_match(code_->code, reinterpret_cast<PCRE2_SPTR>(text.data()), text.size(), 0, options,
                                code_->found, code_->context);
  if (count < 0 && count != PCRE2_ERROR_NOMATCH) {
    fail(Fault::bad_data, "{} takes too long on \"{}\"; write a simpler one", code_->where, clipped(text));
  }
  return count >= 0;
}

bool PathPattern::full_match(const std::string& text) const { return run(text, true); }
bool PathPattern::match(const std::string& text) const { return run(text, false); }

std::optional<int64_t> PathPattern::number(const std::string& text, const std::string& name) const {
  if (!run(text, false)) return std::nullopt;
  PCRE2_UCHAR* value = nullptr;
  PCRE2_SIZE size = 0;
  if (pcre2_substring_get_byname(code_->found, reinterpret_cast<PCRE2_SPTR>(name.c_str()), &value, &size) != 0)
    return std::nullopt;
  const std::string digits(reinterpret_cast<const char*>(value), size);
  pcre2_substring_free(value);
  int64_t number = 0;
  const auto [end, error] = std::from_chars(digits.data(), digits.data() + digits.size(), number);
  if (error != std::errc() || end != digits.data() + digits.size()) {
    fail(Fault::bad_data, "{} finds \"{}\" in \"{}\" where a layer's number is expected", code_->where, clipped(digits),
         clipped(text));
  }
  return number;
}

}  // namespace drover
