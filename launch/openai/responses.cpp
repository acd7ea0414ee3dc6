#include "launch/openai/responses.h"

#include <algorithm>

#include "launch/openai/logprobs_json.h"

namespace drover::openai {

namespace {

constexpr const char* kChunk = "chat.completion.chunk";
constexpr const char* kText = "text_completion";

OrderedJson headed(const AnswerHead& head, const char* object) {
  return {{"id", head.id},
          {"object", object},
          {"created", head.created},
          {"model", head.model},
          {"system_fingerprint", head.fingerprint}};
}

OrderedJson usage_json(const Usage& usage) {
  return {{"prompt_tokens", usage.prompt_tokens},
          {"completion_tokens", usage.completion_tokens},
          {"total_tokens", usage.prompt_tokens + usage.completion_tokens}};
}

const char* name_of(FinishReason reason) {
  switch (reason) {
    case FinishReason::length: return "length";
    case FinishReason::tool_calls: return "tool_calls";
    default: return "stop";
  }
}

OrderedJson reason_or_null(const std::optional<FinishReason>& reason) {
  return reason ? OrderedJson(name_of(*reason)) : OrderedJson();
}

using Entries = std::optional<std::vector<TokenEntry>>;
OrderedJson chat_entries(const Entries& entries) { return entries ? chat_logprobs(*entries) : OrderedJson(); }
OrderedJson text_entries(const Entries& entries) { return entries ? text_logprobs(*entries) : OrderedJson(); }

OrderedJson message_json(const ChatChoice& choice) {
  OrderedJson message{{"role", "assistant"}, {"content", choice.content}, {"refusal", nullptr}};
  if (choice.calls.empty()) return message;
  if (choice.content.empty()) message["content"] = nullptr;
  OrderedJson calls = OrderedJson::array();
  for (const ToolCall& call : choice.calls) {
    calls.push_back(
        {{"id", call.id}, {"type", "function"}, {"function", {{"name", call.name}, {"arguments", call.arguments}}}});
  }
  message["tool_calls"] = std::move(calls);
  return message;
}

std::string event(const StreamHead& stream, const char* object, OrderedJson choices,
                  const std::optional<Usage>& usage = {}) {
  OrderedJson chunk = headed(stream.head, object);
  chunk["choices"] = std::move(choices);
  if (stream.usage) chunk["usage"] = usage ? usage_json(*usage) : OrderedJson();
  return "data: " + ApiError::to_body(chunk) + "\n\n";
}

OrderedJson chat_choice(int64_t index, OrderedJson delta, const Entries& logprobs = {},
                        const std::optional<FinishReason>& finish = {}) {
  return OrderedJson::array({{{"index", index},
                              {"delta", std::move(delta)},
                              {"logprobs", chat_entries(logprobs)},
                              {"finish_reason", reason_or_null(finish)}}});
}

// Content first, then of each call its name and its arguments.
std::vector<OrderedJson> deltas_of(const ChatPiece& piece) {
  std::vector<OrderedJson> deltas;
  if (!piece.content.empty()) deltas.push_back({{"content", piece.content}});
  const auto add = [&](OrderedJson call) { deltas.push_back({{"tool_calls", OrderedJson::array({std::move(call)})}}); };
  for (const ToolCall& call : piece.calls) {
    add({{"index", call.index},
         {"id", call.id},
         {"type", "function"},
         {"function", {{"name", call.name}, {"arguments", ""}}}});
    add({{"index", call.index}, {"function", {{"arguments", call.arguments}}}});
  }
  if (deltas.empty()) deltas.push_back(OrderedJson::object());
  return deltas;
}

OrderedJson card_json(const ModelCard& model) {
  return {{"id", model.id},
          {"object", "model"},
          {"created", model.created},
          {"owned_by", "drover"},
          {"root", model.root},
          {"parent", model.parent.empty() ? OrderedJson() : OrderedJson(model.parent)},
          {"max_model_len", model.context}};
}

OrderedJson text_of(const Tokenizer& tokenizer, const std::optional<int32_t>& id) {
  return id ? OrderedJson(tokenizer.raw_bytes(*id)) : OrderedJson();
}

}  // namespace

FinishReason finish_reason(bool stopped, int64_t calls) {
  if (!stopped) return FinishReason::length;
  return calls > 0 ? FinishReason::tool_calls : FinishReason::stop;
}

OrderedJson prompt_logprobs(const Tokenizer& tokenizer, std::span<const PromptToken> prompt, int64_t top) {
  OrderedJson list = OrderedJson::array();
  for (const PromptToken& token : prompt) {
    if (!token.logprob) {
      list.push_back(nullptr);
      continue;
    }
    OrderedJson tokens = OrderedJson::object();
    const auto add = [&](int32_t id, float logprob, int64_t rank) {
      OrderedJson& entry = tokens[std::to_string(id)];
      if (!entry.is_null()) return;
      entry = {{"logprob", shown_logprob(logprob)}};
      if (rank > 0) entry["rank"] = rank;
      entry["decoded_token"] = spelling(tokenizer.raw_bytes(id));
    };
    int64_t rank = 0;
    for (const Chosen::Likely& likely : token.first(top)) add(likely.id, likely.logprob, ++rank);
    add(token.id, *token.logprob, token.rank);
    list.push_back(std::move(tokens));
  }
  return list;
}

std::string chat_completion(const AnswerHead& head, std::span<const ChatChoice> choices, const Usage& usage,
                            const std::optional<OrderedJson>& prompt_logprobs) {
  OrderedJson list = OrderedJson::array();
  for (const ChatChoice& choice : choices) {
    list.push_back({{"index", choice.index},
                    {"message", message_json(choice)},
                    {"logprobs", chat_entries(choice.logprobs)},
                    {"finish_reason", name_of(choice.finish)}});
  }
  OrderedJson body = headed(head, "chat.completion");
  body["choices"] = std::move(list);
  body["usage"] = usage_json(usage);
  if (prompt_logprobs) body["prompt_logprobs"] = *prompt_logprobs;
  return ApiError::to_body(body);
}

std::string text_completion(const AnswerHead& head, std::span<const TextChoice> choices, const Usage& usage) {
  OrderedJson list = OrderedJson::array();
  for (const TextChoice& choice : choices) {
    list.push_back({{"index", choice.index},
                    {"text", choice.text},
                    {"logprobs", text_entries(choice.logprobs)},
                    {"finish_reason", name_of(choice.finish)}});
    if (choice.prompt_logprobs) list.back()["prompt_logprobs"] = *choice.prompt_logprobs;
  }
  OrderedJson body = headed(head, kText);
  body["choices"] = std::move(list);
  body["usage"] = usage_json(usage);
  return ApiError::to_body(body);
}

std::string chat_start(const StreamHead& stream, int64_t index) {
  return event(stream, kChunk, chat_choice(index, {{"role", "assistant"}, {"content", ""}}));
}

std::string chat_events(const StreamHead& stream, const ChatPiece& piece) {
  std::vector<OrderedJson> deltas = deltas_of(piece);
  std::string events;
  for (size_t i = 0; i < deltas.size(); ++i) {
    const bool last = i + 1 == deltas.size();
    events += event(stream, kChunk,
                    chat_choice(piece.index, std::move(deltas[i]), i == 0 ? piece.logprobs : Entries(),
                                last ? piece.finish : std::nullopt));
  }
  return events;
}

std::string text_event(const StreamHead& stream, const TextPiece& piece) {
  return event(stream, kText,
               OrderedJson::array({{{"index", piece.index},
                                    {"text", piece.text},
                                    {"logprobs", text_entries(piece.logprobs)},
                                    {"finish_reason", reason_or_null(piece.finish)}}}));
}

std::string usage_event(const StreamHead& stream, AnswerKind kind, const Usage& usage) {
  return event(stream, kind == AnswerKind::chat ? kChunk : kText, OrderedJson::array(), usage);
}

std::string error_event(const ApiError& error) { return "data: " + error.body() + "\n\n"; }

std::string model_body(const ModelCard& model) { return ApiError::to_body(card_json(model)); }

std::string models_body(std::span<const ModelCard> models) {
  OrderedJson list = OrderedJson::array();
  for (const ModelCard& model : models) list.push_back(card_json(model));
  return ApiError::to_body({{"object", "list"}, {"data", std::move(list)}});
}

std::string tokenize_body(const Tokenizer& tokenizer, std::span<const int32_t> tokens, int64_t context,
                          bool with_texts) {
  OrderedJson texts;
  if (with_texts) {
    texts = OrderedJson::array();
    for (const int32_t id : tokens) texts.push_back(spelling(tokenizer.raw_bytes(id)));
  }
  return ApiError::to_body({{"count", tokens.size()},
                            {"max_model_len", context},
                            {"tokens", std::vector<int32_t>(tokens.begin(), tokens.end())},
                            {"token_strs", std::move(texts)}});
}

std::string detokenize_body(const Tokenizer& tokenizer, std::span<const int32_t> tokens) {
  return ApiError::to_body({{"prompt", tokenizer.decode(tokens, false)}});
}

std::string tokenizer_info_body(const Tokenizer& tokenizer, const std::optional<ChatTemplate>& chat, int64_t context) {
  return ApiError::to_body({{"tokenizer_class", "PreTrainedTokenizerFast"},
                            {"bos_token", text_of(tokenizer, tokenizer.bos())},
                            {"eos_token", text_of(tokenizer, tokenizer.eos())},
                            {"pad_token", nullptr},
                            {"unk_token", text_of(tokenizer, tokenizer.unknown())},
                            {"add_bos_token", tokenizer.adds_bos()},
                            {"chat_template", chat ? OrderedJson(chat->text()) : OrderedJson()},
                            {"vocab_size", tokenizer.vocab_size()},
                            {"model_max_length", context}});
}

std::string version_body(const std::string& version) { return ApiError::to_body({{"version", version}}); }

std::string loaded_text(const std::string& adapter) {
  return fmt::format("Success: LoRA adapter '{}' added successfully.", adapter);
}

std::string unloaded_text(const std::string& adapter) {
  return fmt::format("Success: LoRA adapter '{}' removed successfully.", adapter);
}

}  // namespace drover::openai
