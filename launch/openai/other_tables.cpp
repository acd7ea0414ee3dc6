// Fields of the other requests, and all endpoints.
#include "launch/openai/field_makers.h"

namespace drover::openai {

namespace {

constexpr int64_t kLongest = kMostInt;  // the body's limit comes first
constexpr const char* kNameOfAdapter = "._-";

Field model() { return text("model", 0, 1000, "whose tokenizer it is; absent: the base model's"); }

Field spellings() { return boolean("return_token_strs", "the answer has each token's text as well"); }

}  // namespace

const FieldTable& tokenize_text_table() {
  static const FieldTable table{
      "TokenizeTextRequest",
      {model(), required(text("prompt", 0, kLongest, "the text; spellings of special tokens become them")),
       boolean("add_special_tokens", "false: without a BOS; absent: true"), spellings()}};
  return table;
}

const FieldTable& tokenize_chat_table() {
  static const FieldTable table{
      "TokenizeChatRequest",
      {model(), required(objects("messages", 1, kMostInt, &message_table(), "the dialog")),
       objects("tools", 0, kMostTools, &tool_table(), "functions that the model may call"),
       boolean("add_generation_prompt", "the header of an answer ends the prompt; absent: true"),
       boolean("continue_final_message", "the last message stays open"),
       boolean("add_special_tokens", "a BOS in front of what the chat template writes; absent: false"), spellings()},
      {{"chat_template", "the model's own is used"},
       {"chat_template_kwargs", "the model's own template is used as it is", {OrderedJson::object()}},
       {"mm_processor_kwargs", "the model reads text", {OrderedJson::object()}}}};
  return table;
}

const FieldTable& detokenize_table() {
  static const FieldTable table{
      "DetokenizeRequest",
      {model(), required(entries("tokens", FieldKind::token_ids, 0, kMostInt, "what becomes text"))}};
  return table;
}

const FieldTable& load_adapter_table() {
  static const FieldTable table{
      "LoadAdapterRequest",
      {required(word("lora_name", kNameOfAdapter, "the adapter's id from now on")),
       required(text("lora_path", 1, 4096, "its directory, as the server sees it")),
       boolean("load_inplace", "an adapter of that name is replaced; absent: it is refused")},
      {{"base_model_name", "there is one base model"}, {"is_3d_lora_weight", "leave it out", {false}}}};
  return table;
}

const FieldTable& unload_adapter_table() {
  static const FieldTable table{"UnloadAdapterRequest",
                                {required(word("lora_name", kNameOfAdapter, "the adapter's id"))},
                                {{"lora_int_id", "adapters are named by lora_name"}}};
  return table;
}

const std::vector<Endpoint>& endpoints() {
  constexpr const char *kJson = "application/json", *kText = "text/plain";
  static const std::vector<Endpoint> all{
      {"get", "/v1/models", "the base model and its adapters", {}, kJson},
      {"get", "/v1/models/{model}", "one of them, by its id", {}, kJson},
      {"post", "/v1/chat/completions", "answers a dialog", {&chat_table()}, kJson},
      {"post", "/v1/completions", "continues texts", {&completion_table()}, kJson},
      {"post",
       "/tokenize",
       "a text's or a dialog's token ids",
       {&tokenize_text_table(), &tokenize_chat_table()},
       kJson},
      {"post", "/detokenize", "the text of token ids", {&detokenize_table()}, kJson},
      {"get", "/tokenizer_info", "the tokenizer's special tokens and chat template", {}, kJson},
      {"post", "/v1/load_lora_adapter", "serves one more adapter", {&load_adapter_table()}, kText},
      {"post", "/v1/unload_lora_adapter", "serves an adapter no longer", {&unload_adapter_table()}, kText},
      {"get", "/health", "200 while requests are answered, else 503", {}, ""},
      {"get", "/metrics", "counters and times, for Prometheus", {}, kText},
      {"get", "/version", "the server's version", {}, kJson},
      {"get", "/openapi.json", "this document", {}, kJson},
  };
  return all;
}

}  // namespace drover::openai
