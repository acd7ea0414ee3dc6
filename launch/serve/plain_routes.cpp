#include "launch/serve/plain_routes.h"

#include "launch/openai/openapi.h"
#include "launch/openai/responses.h"
#include "launch/serve/rendering.h"
#include "launch/serve/server_metrics.h"
#include "launch/version.h"

namespace drover {

HttpResponse health(Serving&, const HttpRequest&) {
  if (Serving::draining()) return {.status = 503, .body = R"({"status":"draining"})"};
  return {.body = R"({"status":"ok"})"};
}

HttpResponse metrics(Serving& serving, const HttpRequest&) {
  return {.type = std::string(Metrics::kType), .body = serving.metrics.text(serving.loop.state())};
}

HttpResponse version(Serving&, const HttpRequest&) { return {.body = openai::version_body(program_version())}; }

HttpResponse openapi(Serving&, const HttpRequest&) { return {.body = openai::openapi_json(program_version())}; }

namespace {

openai::ModelCard card_of(const Serving& serving, const ServedModel& model) {
  return {.id = model.id,
          .created = model.created,
          .root = model.root.string(),
          .parent = model.parent,
          .context = serving.context};
}

}  // namespace

HttpResponse list_models(Serving& serving, const HttpRequest&) {
  std::vector<openai::ModelCard> cards;
  for (const ServedModelPtr& model : serving.models.list()) cards.push_back(card_of(serving, *model));
  return {.body = openai::models_body(cards)};
}

HttpResponse one_model(Serving& serving, const HttpRequest& request) {
  const std::string id = request.path.substr(request.path.rfind('/') + 1);
  return {.body = openai::model_body(card_of(serving, *find_model(serving, id)))};
}

HttpResponse tokenizer_info(Serving& serving, const HttpRequest&) {
  return {.body = openai::tokenizer_info_body(serving.tokenizer, serving.models.base()->manner.chat, serving.context)};
}

HttpResponse tokenize(Serving& serving, const HttpRequest& request) {
  const openai::TokenizeRequest asked = openai::parse_tokenize(request.body);
  const ServedModelPtr model = find_model(serving, asked.model);
  const auto* text = std::get_if<std::string>(&asked.prompt);
  const std::vector<int32_t> ids = text != nullptr
                                       ? text_ids(serving, *text, asked.add_special_tokens)
                                       : render_dialog(serving, *model, std::get<openai::Dialog>(asked.prompt));
  return {.body = openai::tokenize_body(serving.tokenizer, ids, serving.context, asked.return_token_strs)};
}

HttpResponse detokenize(Serving& serving, const HttpRequest& request) {
  const openai::DetokenizeRequest asked = openai::parse_detokenize(request.body, serving.defaults);
  find_model(serving, asked.model);
  return {.body = openai::detokenize_body(serving.tokenizer, asked.tokens)};
}

}  // namespace drover
