// POST /tokenize, /detokenize, /v1/load_lora_adapter, /v1/unload_lora_adapter, as vLLM has them.
#include "launch/openai/requests.h"

namespace drover::openai {

TokenizeRequest parse_tokenize(std::string_view body) {
  const OrderedJson json = parse_body(body);
  const bool chat = json.contains("messages") && !json["messages"].is_null();
  const Fields fields(json, chat ? tokenize_chat_table() : tokenize_text_table());
  TokenizeRequest request;
  request.model = fields.text("model").value_or("");
  if (chat) {
    request.prompt = dialog_of(fields);
  } else {
    request.prompt = *fields.text("prompt");
    request.add_special_tokens = fields.boolean("add_special_tokens").value_or(true);
  }
  request.return_token_strs = fields.boolean("return_token_strs").value_or(false);
  fields.expect_all_read();
  return request;
}

DetokenizeRequest parse_detokenize(std::string_view body, const RequestDefaults& defaults) {
  const OrderedJson json = parse_body(body);
  const Fields fields(json, detokenize_table());
  DetokenizeRequest request;
  request.model = fields.text("model").value_or("");
  request.tokens = token_ids_of(*fields.json("tokens"), defaults.vocab_size, "tokens");
  fields.expect_all_read();
  return request;
}

LoadAdapterRequest parse_load_adapter(std::string_view body) {
  const OrderedJson json = parse_body(body);
  const Fields fields(json, load_adapter_table());
  LoadAdapterRequest request{.name = *fields.text("lora_name"), .path = *fields.text("lora_path")};
  request.replace = fields.boolean("load_inplace").value_or(false);
  fields.expect_all_read();
  if (request.path.find('\0') != std::string::npos)
    throw invalid_request("lora_path", "'lora_path' has a NUL character, which no path has");
  return request;
}

UnloadAdapterRequest parse_unload_adapter(std::string_view body) {
  const OrderedJson json = parse_body(body);
  const Fields fields(json, unload_adapter_table());
  UnloadAdapterRequest request{.name = *fields.text("lora_name")};
  fields.expect_all_read();
  return request;
}

}  // namespace drover::openai
