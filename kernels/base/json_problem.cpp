#include "kernels/base/json_problem.h"

#include <fmt/format.h>

#include "kernels/base/json.h"

namespace drover {

std::string json_problem(const nlohmann::json::exception& error) {
  constexpr std::string_view kCannot = "cannot use ", kWith = " with ";  // "cannot use value() with string"
  std::string_view text = error.what();
  if (const size_t prefix = text.find("] "); text.starts_with("[json.exception.") && prefix != std::string_view::npos)
    text.remove_prefix(prefix + 2);
  const size_t with = text.rfind(kWith);
  if (text.starts_with(kCannot) && with != std::string_view::npos)
    return fmt::format("a value of the type {} stands where an object or a list is expected",
                       text.substr(with + kWith.size()));
  return clipped(text, 240);
}

}  // namespace drover
