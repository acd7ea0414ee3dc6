#include "launch/serve/plain_routes.h"

#include "data/chat_template.h"
#include "launch/openai/openapi.h"
#include "launch/openai/responses.h"
#include "launch/serve/rendering.h"
#include "launch/serve/server_metrics.h"
#include "launch/version.h"
#include "trainer/setup/inputs.h"

namespace drover {

HttpResponse health(Serving& serving, const HttpRequest&) {
  if (serving.draining) return {.status = 503, .body = R"({"status":"draining"})"};
  return {.body = R"({"status":"ok"})"};
}

HttpResponse metrics(Serving& serving, const HttpRequest&) {
  return {.type = std::string(Metrics::kType), .body = serving.metrics.text(serving.loop.state())};
}

HttpResponse version(Serving&, const HttpRequest&) {
  return {.body = Json{{"version", version_text().substr(0, version_text().find('\n'))}}.dump()};
}

HttpResponse openapi(Serving&, const HttpRequest&) { return {.body = openai::openapi_json()}; }

// tokenizer_config.json as it is, with the words for its special tokens and the template that is used: what clients
// build the same tokenizer from.
HttpResponse tokenizer_info(Serving& serving, const HttpRequest&) {
  const fs::path file = tokenizer_directory(serving.settings.recipe) / "tokenizer_config.json";
  OrderedJson info = OrderedJson::object();
  std::error_code ignored;
  if (fs::exists(file, ignored)) info = parse_ordered_json(read_text(file, size_t{16} << 20), file.filename().string());
  const auto spell = [&](const char* key, std::optional<int32_t> id) {
    if (id) info[key] = serving.tokenizer.raw_bytes(*id);
  };
  spell("bos_token", serving.tokenizer.bos());
  spell("eos_token", serving.tokenizer.eos());
  if (const auto& chat = serving.models.base()->manner.chat) info["chat_template"] = chat->text();
  if (!info.contains("tokenizer_class")) info["tokenizer_class"] = "PreTrainedTokenizerFast";
  return {.body = openai::ApiError::to_body(info)};
}

}  // namespace drover
