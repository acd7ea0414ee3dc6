// What the JSON library says of a value that is not as expected, in words for people.
#pragma once
#include <nlohmann/json.hpp>
#include <string>

namespace drover {

// Without the library's name and numbers; at most 240 bytes.
std::string json_problem(const nlohmann::json::exception& error);

}  // namespace drover
