#include "launch/serve/wire_request.h"

namespace drover {

namespace {

Json to_wire(const Sampling& s) {
  Json biases = Json::array();
  for (const auto& [token, bias] : s.logit_bias) biases.push_back({token, bias});
  return {s.greedy,
          s.temperature,
          s.top_p,
          s.top_k,
          s.min_p,
          s.seed,
          s.repetition_penalty,
          s.frequency_penalty,
          s.presence_penalty,
          std::move(biases),
          s.logprobs.value_or(-1)};
}

std::optional<int64_t> optional_of(const Json& value) {
  const int64_t n = value.get<int64_t>();
  return n < 0 ? std::nullopt : std::optional(n);
}

Sampling sampling_from_wire(const Json& wire) {
  Sampling s{.greedy = wire.at(0),
             .temperature = wire.at(1),
             .top_p = wire.at(2),
             .top_k = wire.at(3),
             .min_p = wire.at(4),
             .seed = wire.at(5),
             .repetition_penalty = wire.at(6),
             .frequency_penalty = wire.at(7),
             .presence_penalty = wire.at(8)};
  for (const Json& bias : wire.at(9)) s.logit_bias.push_back({bias.at(0), bias.at(1)});
  s.logprobs = optional_of(wire.at(10));
  return s;
}

}  // namespace

Json to_wire(const Request& r) {
  return {r.ids,     to_wire(r.sampling),           r.stop_ids, r.max_tokens, r.number, r.slot,
          r.weights, r.prompt_logprobs.value_or(-1)};
}

Request from_wire(const Json& wire) {
  return {.ids = wire.at(0),
          .sampling = sampling_from_wire(wire.at(1)),
          .stop_ids = wire.at(2),
          .max_tokens = wire.at(3),
          .number = wire.at(4),
          .slot = wire.at(5),
          .weights = wire.at(6),
          .prompt_logprobs = optional_of(wire.at(7))};
}

}  // namespace drover
