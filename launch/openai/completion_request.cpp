// POST /v1/completions.
#include <algorithm>

#include "launch/openai/requests.h"

namespace drover::openai {

namespace {

std::vector<int32_t> ids_of(const OrderedJson& list, int64_t vocab_size, const std::string& path) {
  if (list.empty()) throw invalid_request(path, fmt::format("'{}' is empty; it needs at least one token id", path));
  return token_ids_of(list, vocab_size, path);
}

auto prompts_of(const OrderedJson& prompt, int64_t vocab_size) {
  decltype(CompletionRequest::prompts) prompts;
  if (prompt.is_string()) {
    prompts.emplace_back(prompt.get<std::string>());
    return prompts;
  }
  if (prompt.empty() || prompt.front().is_number()) {
    prompts.emplace_back(ids_of(prompt, vocab_size, "prompt"));
    return prompts;
  }
  if (static_cast<int64_t>(prompt.size()) > kMostPrompts)
    throw invalid_request("prompt", fmt::format("'prompt' has {} prompts; at most {} are answered in one request",
                                                prompt.size(), kMostPrompts));
  for (size_t i = 0; i < prompt.size(); ++i) {
    const std::string path = fmt::format("prompt[{}]", i);
    if (prompt[i].is_string() && prompt.front().is_string()) {
      prompts.emplace_back(prompt[i].get<std::string>());
    } else if (prompt[i].is_array() && prompt.front().is_array()) {
      prompts.emplace_back(ids_of(prompt[i], vocab_size, path));
    } else {
      throw invalid_request(
          path, fmt::format("'{}' is neither a string nor a list of token ids, as all the others are", path));
    }
  }
  return prompts;
}

}  // namespace

CompletionRequest parse_completion(std::string_view body, const RequestDefaults& defaults) {
  const OrderedJson json = parse_body(body);
  const Fields fields(json, completion_table());
  CompletionRequest request;
  request.model = fields.text("model").value_or("");
  request.prompts = prompts_of(*fields.json("prompt"), defaults.vocab_size);
  request.echo = fields.boolean("echo").value_or(false);
  request.add_special_tokens = fields.boolean("add_special_tokens").value_or(true);
  request.options = answer_options(fields, defaults);
  request.options.sampling.logprobs = fields.integer("logprobs");
  if (request.options.max_tokens == 0 && !request.echo && !request.options.prompt_logprobs)
    throw invalid_request("max_tokens",
                          "'max_tokens' is 0, which is for 'echo' and 'prompt_logprobs' only; ask for at least 1");
  fields.expect_all_read();
  return request;
}

}  // namespace drover::openai
