// Sampling, lengths, stops: what both endpoints for answers share.
#include <charconv>
#include <cmath>

#include "launch/openai/requests.h"

namespace drover::openai {

namespace {

constexpr double kColdest = 1e-5;  // temperatures below are greedy: logits divided by them leave fp32's range

std::vector<Sampling::Bias> biases_of(const Fields& fields, int64_t vocab_size) {
  std::vector<Sampling::Bias> biases;
  const OrderedJson* object = fields.json("logit_bias");
  if (!object) return biases;
  for (const auto& [token, bias] : object->items()) {
    int64_t id = -1;
    const char* end = token.data() + token.size();
    const auto [read, error] = std::from_chars(token.data(), end, id);
    const bool plain = error == std::errc() && read == end && std::to_string(id) == token;
    if (!plain || id < 0 || id >= vocab_size)
      throw invalid_request(
          "logit_bias", fmt::format("a key of 'logit_bias' must be a token id from 0 to {}, not \"{}\"", vocab_size - 1,
                                    clipped(token, 40)));
    biases.push_back({static_cast<int32_t>(id), bias.get<float>()});
  }
  return biases;
}

Sampling sampling_of(const Fields& fields, const RequestDefaults& defaults) {
  Sampling s;
  const double temperature = fields.number("temperature").value_or(defaults.temperature);
  s.top_p = static_cast<float>(fields.number("top_p").value_or(defaults.top_p));
  s.greedy = temperature < kColdest || s.top_p <= 0;
  if (s.top_p <= 0) s.top_p = 1;
  if (!s.greedy) s.temperature = static_cast<float>(temperature);
  s.top_k = static_cast<int32_t>(std::max<int64_t>(0, fields.integer("top_k").value_or(0)));
  s.min_p = static_cast<float>(fields.number("min_p").value_or(0));
  s.presence_penalty = static_cast<float>(fields.number("presence_penalty").value_or(0));
  s.frequency_penalty = static_cast<float>(fields.number("frequency_penalty").value_or(0));
  s.repetition_penalty = static_cast<float>(fields.number("repetition_penalty").value_or(1));
  s.logit_bias = biases_of(fields, defaults.vocab_size);
  return s;
}

bool include_usage(const Fields& fields, bool stream) {
  const OrderedJson* object = fields.json("stream_options");
  if (!object) return false;
  const Fields options(*object, stream_options_table(), "stream_options");
  if (!stream) throw invalid_request("stream_options", "'stream_options' is allowed only where 'stream' is true");
  const bool usage = options.boolean("include_usage").value_or(false);
  options.expect_all_read();
  return usage;
}

}  // namespace

AnswerOptions answer_options(const Fields& fields, const RequestDefaults& defaults) {
  AnswerOptions o;
  o.sampling = sampling_of(fields, defaults);
  o.seed = fields.integer("seed");
  if (o.seed) o.sampling.seed = static_cast<uint64_t>(*o.seed);
  const auto longest = fields.integer("max_tokens"), newer = fields.integer("max_completion_tokens");
  o.max_tokens = newer ? newer : longest;
  o.n = fields.integer("n").value_or(1);
  if (const auto best_of = fields.integer("best_of"); best_of && *best_of != o.n)
    throw invalid_request("best_of",
                          fmt::format("'best_of' must equal 'n', which is {}: every answer is returned", o.n));
  o.stop = fields.texts("stop");
  if (const OrderedJson* ids = fields.json("stop_token_ids"))
    o.stop_ids = token_ids_of(*ids, defaults.vocab_size, "stop_token_ids");
  o.ignore_eos = fields.boolean("ignore_eos").value_or(false);
  o.skip_special_tokens = fields.boolean("skip_special_tokens").value_or(true);
  o.stream = fields.boolean("stream").value_or(false);
  o.include_usage = include_usage(fields, o.stream);
  o.prompt_logprobs = fields.integer("prompt_logprobs");
  if (o.prompt_logprobs && o.stream)
    throw invalid_request("prompt_logprobs", "'prompt_logprobs' is not given in streams; leave out 'stream'");
  return o;
}

int64_t answer_tokens(const AnswerOptions& options, int64_t prompt_tokens, int64_t context,
                      std::optional<int64_t> preset) {
  const char* code = "context_length_exceeded";
  if (prompt_tokens < 1) throw invalid_request("prompt", "the prompt has no tokens; it needs at least one");
  if (prompt_tokens >= context)
    throw invalid_request("",
                          fmt::format("the prompt has {} tokens, and the context of {} leaves no room for an answer",
                                      prompt_tokens, context),
                          code);
  const int64_t room = context - prompt_tokens;
  if (!options.max_tokens) return std::min(room, preset.value_or(room));
  if (*options.max_tokens > room)
    throw invalid_request("max_tokens",
                          fmt::format("the prompt has {} tokens and 'max_tokens' is {}, together more than the context "
                                      "of {}; shorten the prompt or ask for at most {}",
                                      prompt_tokens, *options.max_tokens, context, room),
                          code);
  return *options.max_tokens;
}

}  // namespace drover::openai
