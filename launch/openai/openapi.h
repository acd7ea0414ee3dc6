// The server's own description, as GET /openapi.json gives it: made from the tables that requests are checked by.
#pragma once
#include <string>

namespace drover::openai {

// OpenAPI 3.0.3: every endpoint with every field that is taken, its type and range. Refused fields are not in it.
std::string openapi_json(const std::string& version);

}  // namespace drover::openai
