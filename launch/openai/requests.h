// What clients ask for, read from the body of a request. Every field of the tables (field_table.h) is either here or
// taken without effect; what is wrong is an ApiError that names the field. Nothing here knows a model or a tokenizer:
// that an id is served, and that prompt and answer fit into the context, is the server's business.
#pragma once
#include <algorithm>
#include <optional>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include "data/message.h"
#include "launch/openai/fields.h"
#include "model/generation/sampling.h"

namespace drover::openai {

struct RequestDefaults {
  double temperature = 1, top_p = 1;  // generation_config.json's; temperature 0: greedy
  int64_t vocab_size = 0;             // token ids in requests are below
};

// How an answer is made and ended, the same for both endpoints.
struct AnswerOptions {
  // Ready for the engine but for its seed where `seed` is absent: one is drawn then, and answers of one request differ
  // by Draw::sequence or by seeds of their own.
  Sampling sampling;
  std::optional<int64_t> seed;
  std::optional<int64_t> max_tokens;  // 0 (completions only): the prompt is looked at, and that is all
  int64_t n = 1;
  std::vector<std::string> stop;
  std::vector<int32_t> stop_ids;  // besides the model's own
  bool ignore_eos = false;        // the model's own do not count
  bool skip_special_tokens = true;
  bool stream = false, include_usage = false;
  std::optional<int64_t> prompt_logprobs;  // so many others with each token of the prompt; not with stream
};

// Tokens that an answer may have behind a prompt of so many: max_tokens, or `preset` where it is absent (nullopt: to
// the end of the context). 400 where prompt and answer are longer than the context, or the prompt is empty.
int64_t answer_tokens(const AnswerOptions& options, int64_t prompt_tokens, int64_t context,
                      std::optional<int64_t> preset);
inline constexpr int64_t kCompletionTokens = 16;  // the preset of /v1/completions

struct ResponseFormat {
  enum class Kind : uint8_t { text, json_object, json_schema };
  Kind kind = Kind::text;
  std::string name;    // json_schema's
  OrderedJson schema;  // an object
  bool strict = false;
};

struct ToolChoice {
  enum class Kind : uint8_t { automatic, none, required, named };
  Kind kind = Kind::automatic;
  std::string name;  // of the function, which is one of the tools
};

// A dialog as a chat template takes it.
struct Dialog {
  // Parts are joined, developer is system, arguments of calls are objects; name, tool_calls and tool_call_id stand in
  // `more`, and so does content where it is null.
  std::vector<Message> messages;
  OrderedJson tools;                    // a list of functions as the client wrote it; null where there is none
  bool add_generation_prompt = true;    // false where continue_final_message is set
  bool continue_final_message = false;  // the last message is the assistant's and stays open
  bool add_special_tokens = false;      // BOS in front of what the template writes
};

struct ChatRequest {
  std::string model;  // empty: the base model
  Dialog dialog;
  ToolChoice tool_choice;
  bool parallel_tool_calls = true;  // false: at most one call
  ResponseFormat response_format;
  AnswerOptions options;  // sampling.logprobs: top_logprobs, where logprobs is set
  // Whether the answer's text is looked through for calls.
  bool may_call() const { return !dialog.tools.is_null() && tool_choice.kind != ToolChoice::Kind::none; }
};

struct CompletionRequest {
  std::string model;
  std::vector<std::variant<std::string, std::vector<int32_t>>> prompts;  // at least one; lists of ids are not empty
  bool echo = false;
  bool add_special_tokens = true;  // a text has the frame of a document (Tokenizer::encode_document)
  AnswerOptions options;           // sampling.logprobs: logprobs
  // How many others come with each token of the prompt, for echo and prompt_logprobs together; without: it need not be
  // scored.
  std::optional<int64_t> scored_prompt() const {
    return std::max(echo ? options.sampling.logprobs : std::nullopt, options.prompt_logprobs);
  }
};

struct TokenizeRequest {
  std::string model;
  std::variant<std::string, Dialog> prompt;
  bool add_special_tokens = true;  // of a text; a dialog has its own
  bool return_token_strs = false;
};

struct DetokenizeRequest {
  std::string model;
  std::vector<int32_t> tokens;
};

struct LoadAdapterRequest {
  std::string name, path;
  bool replace = false;  // load_inplace
};

struct UnloadAdapterRequest {
  std::string name;
};

ChatRequest parse_chat(std::string_view body, const RequestDefaults& defaults);
CompletionRequest parse_completion(std::string_view body, const RequestDefaults& defaults);
TokenizeRequest parse_tokenize(std::string_view body);
DetokenizeRequest parse_detokenize(std::string_view body, const RequestDefaults& defaults);
LoadAdapterRequest parse_load_adapter(std::string_view body);
UnloadAdapterRequest parse_unload_adapter(std::string_view body);

// Parts of the above.
AnswerOptions answer_options(const Fields& fields, const RequestDefaults& defaults);
Dialog dialog_of(const Fields& fields);  // messages, tools and how the prompt ends

}  // namespace drover::openai
