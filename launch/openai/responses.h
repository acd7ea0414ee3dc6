// What clients get: bodies of answers, events of streams, lists. JSON in the order in which OpenAI writes it; a
// log-probability below -9999 (a probability of 0 in fp32) is -9999, as JSON has no infinity. Pure functions.
#pragma once
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "data/chat_template.h"
#include "launch/openai/answer_text.h"
#include "launch/openai/api_error.h"
#include "launch/openai/tool_calls.h"

namespace drover::openai {

// What every body and event of one answer begins with.
struct AnswerHead {
  std::string id;       // "chatcmpl-…", "cmpl-…"
  int64_t created = 0;  // seconds since 1970
  std::string model;
  std::string fingerprint;  // system_fingerprint: what weights and program answered
};

struct Usage {
  int64_t prompt_tokens = 0;      // of each prompt once, however many answers it has
  int64_t completion_tokens = 0;  // of all answers
};

enum class FinishReason : uint8_t { stop, length, tool_calls };

// stop becomes tool_calls where the answer has calls.
FinishReason finish_reason(bool stopped, int64_t calls);

// One answer, whole.
struct ChatChoice {
  int64_t index = 0;
  std::string content;
  std::vector<ToolCall> calls = {};
  std::optional<std::vector<TokenEntry>> logprobs = {};
  FinishReason finish = FinishReason::stop;
};
struct TextChoice {
  int64_t index = 0;  // prompts in order, their answers together: prompt · n + answer
  std::string text;
  std::optional<std::vector<TokenEntry>> logprobs = {};
  FinishReason finish = FinishReason::stop;
  // vLLM's, null for the first token; absent where not asked for.
  std::optional<OrderedJson> prompt_logprobs = {};
};

// The tokens of a prompt, each with at most `top` of the likeliest: a list of null and {"ID": {"logprob", "rank",
// "decoded_token"}}.
OrderedJson prompt_logprobs(const Tokenizer& tokenizer, std::span<const PromptToken> prompt, int64_t top);

std::string chat_completion(const AnswerHead& head, std::span<const ChatChoice> choices, const Usage& usage,
                            const std::optional<OrderedJson>& prompt_logprobs = {});
std::string text_completion(const AnswerHead& head, std::span<const TextChoice> choices, const Usage& usage);

// Events of streams ("data: …\n\n"). An answer's first event is `chat_start`, its last one has `finish`, then come
// `usage_event` where it was asked for, and kDone.
struct StreamHead {
  AnswerHead head;
  bool usage = false;  // include_usage: every event has "usage", null but in the last one
};
struct ChatPiece {
  int64_t index = 0;
  std::string content = {};
  std::vector<ToolCall> calls = {};  // each becomes two events: the name, then the arguments
  std::optional<std::vector<TokenEntry>> logprobs = {};
  std::optional<FinishReason> finish = {};
};
struct TextPiece {
  int64_t index = 0;
  std::string text = {};
  std::optional<std::vector<TokenEntry>> logprobs = {};
  std::optional<FinishReason> finish = {};
};
std::string chat_start(const StreamHead& stream, int64_t index);
std::string chat_events(const StreamHead& stream, const ChatPiece& piece);  // one, or several where there are calls
std::string text_event(const StreamHead& stream, const TextPiece& piece);
enum class AnswerKind : uint8_t { chat, text };
std::string usage_event(const StreamHead& stream, AnswerKind kind, const Usage& usage);
std::string error_event(const ApiError& error);  // the stream ends with it, without kDone
inline constexpr const char* kDone = "data: [DONE]\n\n";

struct ModelCard {
  std::string id;
  int64_t created = 0;
  std::string root;         // its directory
  std::string parent = {};  // an adapter's base model; empty: it is the base model
  int64_t context = 0;      // max_model_len
};
std::string model_body(const ModelCard& model);
std::string models_body(std::span<const ModelCard> models);

std::string tokenize_body(const Tokenizer& tokenizer, std::span<const int32_t> tokens, int64_t context,
                          bool with_texts);
std::string detokenize_body(const Tokenizer& tokenizer, std::span<const int32_t> tokens);
std::string tokenizer_info_body(const Tokenizer& tokenizer, const std::optional<ChatTemplate>& chat, int64_t context);
std::string version_body(const std::string& version);
std::string loaded_text(const std::string& adapter);  // plain text, as vLLM says it
std::string unloaded_text(const std::string& adapter);

}  // namespace drover::openai
