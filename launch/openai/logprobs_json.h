// Log-probabilities as the endpoints write them.
#pragma once
#include <vector>

#include "kernels/base/json.h"
#include "launch/openai/answer_text.h"

namespace drover::openai {

double shown_logprob(float logprob);  // at least -9999

// A token's text for people: where its bytes are no whole characters, each byte as \xHH.
std::string spelling(const std::string& bytes);

// {"content": [{"token", "logprob", "bytes", "top_logprobs"}], "refusal": null}
OrderedJson chat_logprobs(const std::vector<TokenEntry>& entries);

// {"tokens", "token_logprobs", "top_logprobs", "text_offset"}: a token is among its own top_logprobs, with the same
// number; parts of characters are spelt bytes:\xHH….
OrderedJson text_logprobs(const std::vector<TokenEntry>& entries);

}  // namespace drover::openai
