// Fields of requests for answers: /v1/chat/completions and /v1/completions.
#include "launch/openai/field_makers.h"

namespace drover::openai {

namespace {

constexpr int64_t kLeastSeed = std::numeric_limits<int64_t>::min(), kMostSeed = std::numeric_limits<int64_t>::max();

Field model() { return text("model", 0, 1000, "the base model or an adapter, by its id; absent: the base model"); }

std::vector<Field> sampling_fields() {
  Field biases = entries("logit_bias", FieldKind::biases, 0, kMostBiases, "added to the logits of tokens, by token id");
  biases.least = -100;
  biases.most = 100;
  return {
      number("temperature", 0, 2, "0: always the likeliest token; absent: generation_config.json's"),
      number("top_p", 0, 1, "draws from the likeliest tokens of this probability; absent: generation_config.json's"),
      integer("top_k", -1, kMostInt, "draws from so many of the likeliest tokens; -1 and 0: all"),
      number("min_p", 0, 1, "leaves out tokens below this part of the likeliest one's probability"),
      number("presence_penalty", -2, 2, "subtracted once from logits of tokens that the answer has"),
      number("frequency_penalty", -2, 2, "subtracted for each time that the answer has a token"),
      number("repetition_penalty", 0.01, 100, "divides logits of tokens that prompt or answer have; 1: none"),
      biases,
      integer("seed", kLeastSeed, kMostSeed, "the same seed gives the same answer; absent: another each time"),
  };
}

std::vector<Field> answer_fields(int64_t fewest_tokens) {
  Field stop{.name = "stop", .kind = FieldKind::texts, .about = "texts that end an answer and are not part of it"};
  stop.low = 1;
  stop.high = kLongestStop;
  stop.most_entries = kMostStops;
  return {
      integer("max_tokens", fewest_tokens, kMostInt, "tokens of the answer, at most"),
      integer("max_completion_tokens", fewest_tokens, kMostInt, "the same; it counts where both are given"),
      stop,
      entries("stop_token_ids", FieldKind::token_ids, 0, kMostStops, "tokens that end an answer as well"),
      boolean("ignore_eos", "answers do not end at the model's own stop tokens"),
      boolean("skip_special_tokens", "false: special tokens are shown in the text; absent: true"),
      integer("n", 1, kMostAnswers, "answers to each prompt"),
      integer("best_of", 1, kMostAnswers, "where given, it must equal n"),
      boolean("stream", "the answer comes in pieces, as server-sent events"),
      object("stream_options", &stream_options_table(), "only with stream"),
      integer("prompt_logprobs", 0, kMostLogprobs, "log-probabilities of the prompt's tokens, and so many others"),
      ignored(text("user", 0, 1000, "not used")),
      ignored(object("metadata", nullptr, "not used")),
      ignored(text("prompt_cache_key", 0, 1000, "not used")),
      ignored(text("safety_identifier", 0, 1000, "not used")),
  };
}

// Of vLLM, SGLang and llama.cpp: other ways to ask for a format.
std::vector<Refused> refused_formats() {
  std::vector<Refused> all;
  for (const char* name : {"guided_json", "guided_regex", "guided_choice", "guided_grammar", "guided_decoding_backend",
                           "guided_whitespace_pattern", "structural_tag", "structured_outputs", "grammar",
                           "json_schema", "regex", "ebnf"}) {
    all.push_back({name, "use response_format of /v1/chat/completions"});
  }
  return all;
}

std::vector<Refused> refused_everywhere() {
  const std::string leave = "leave it out";
  const OrderedJson none = OrderedJson::array();
  return joined<Refused>({
      refused_formats(),
      {{"use_beam_search", "answers are drawn or greedy", {false}},
       {"length_penalty", "it belongs to beam search", {1}},
       {"early_stopping", "it belongs to beam search", {false}},
       {"min_tokens", "bias the stop tokens (logit_bias), or use ignore_eos", {0}},
       {"include_stop_str_in_output", "an answer ends in front of its stop text", {false}},
       {"spaces_between_special_tokens", leave, {true}},
       {"truncate_prompt_tokens", "shorten the prompt"},
       {"allowed_token_ids", "use logit_bias", {none}},
       {"bad_words", "use logit_bias", {none}},
       {"logits_processors", leave, {none}},
       {"return_tokens_as_token_ids", leave, {false}},
       {"return_token_ids", "POST /tokenize gives them", {false}},
       {"priority", "requests are answered in order of arrival", {0}},
       {"request_id", leave},
       {"cache_salt", leave},
       {"kv_transfer_params", leave},
       {"vllm_xargs", leave}},
  });
}

std::vector<Refused> refused_in_chat() {
  const OrderedJson none = OrderedJson::array(), nothing = OrderedJson::object(), text = {"text"};
  return {
      {"functions", "use tools", {none}},
      {"function_call", "use tool_choice"},
      {"audio", "the model reads and writes text"},
      {"modalities", "the model writes text", {text}},
      {"prediction", "leave it out"},
      {"service_tier", "there is one", {"auto", "default"}},
      {"store", "nothing is stored", {false}},
      {"reasoning_effort", "the model has no such setting"},
      {"verbosity", "the model has no such setting"},
      {"web_search_options", "the server makes no connection to others"},
      {"prompt_cache_retention", "leave it out"},
      {"echo", "use /v1/completions", {false}},
      {"suffix", "use /v1/completions without it"},
      {"documents", "write them into a message", {none}},
      {"chat_template", "the model's own is used"},
      {"chat_template_kwargs", "the model's own template is used as it is", {nothing}},
      {"mm_processor_kwargs", "the model reads text", {nothing}},
  };
}

}  // namespace

const FieldTable& stream_options_table() {
  static const FieldTable table{"StreamOptions",
                                {boolean("include_usage", "a last chunk says how many tokens there were")},
                                {{"continuous_usage_stats", "the last chunk has the usage", {false}},
                                 {"include_obfuscation", "chunks are not padded", {false}}}};
  return table;
}

const FieldTable& chat_table() {
  static const FieldTable table{
      "ChatCompletionRequest",
      joined<Field>({
          {model(),
           required(objects("messages", 1, 100'000, &message_table(), "the dialog so far")),
           objects("tools", 0, kMostTools, &tool_table(), "functions that the model may call"),
           {.name = "tool_choice",
            .kind = FieldKind::choice,
            .about = "whether functions are called, or which one",
            .of = &tool_choice_table(),
            .choices = {"none", "auto", "required"}},
           boolean("parallel_tool_calls", "false: at most one call in an answer; absent: true"),
           object("response_format", &response_format_table(), "the form of the answer's text"),
           boolean("logprobs", "log-probabilities of the answer's tokens"),
           integer("top_logprobs", 0, kMostLogprobs, "and of so many of the likeliest at each place"),
           boolean("add_generation_prompt", "the header of an answer ends the prompt; absent: true"),
           boolean("continue_final_message", "the answer continues the last message, which is the assistant's"),
           boolean("add_special_tokens", "a BOS in front of what the chat template writes; absent: false")},
          sampling_fields(),
          answer_fields(1),
      }),
      joined<Refused>({refused_in_chat(), refused_everywhere()})};
  return table;
}

const FieldTable& completion_table() {
  static const FieldTable table{
      "CompletionRequest",
      joined<Field>({
          {model(),
           required(entries(
               "prompt", FieldKind::prompt, 1, kMostPrompts,
               "one prompt or several, as text, in which special tokens are known by their spelling, or token ids")),
           boolean("echo", "the prompt stands in front of each answer"),
           integer("logprobs", 0, kMostLogprobs, "log-probabilities of the tokens, and so many others at each place"),
           boolean("add_special_tokens", "false: a text prompt has no BOS; absent: true")},
          sampling_fields(),
          answer_fields(0),
      }),
      joined<Refused>({{{"suffix", "only what follows the prompt is written", {""}},
                        {"response_format", "use /v1/chat/completions", {OrderedJson{{"type", "text"}}}},
                        {"tools", "use /v1/chat/completions", {OrderedJson::array()}},
                        {"prompt_embeds", "the model reads text and token ids"}},
                       refused_everywhere()})};
  return table;
}

}  // namespace drover::openai
