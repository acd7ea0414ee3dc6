#include "launch/openai/logprobs_json.h"

#include <algorithm>
#include <cmath>

#include "kernels/base/unicode.h"

namespace drover::openai {

namespace {

OrderedJson bytes_of(const std::string& bytes) {
  OrderedJson list = OrderedJson::array();
  for (const char c : bytes) list.push_back(static_cast<unsigned char>(c));
  return list;
}

OrderedJson chat_token(const ScoredToken& token) {
  return {
      {"token", spelling(token.bytes)}, {"logprob", shown_logprob(token.logprob)}, {"bytes", bytes_of(token.bytes)}};
}

bool is_whole(const std::string& bytes) { return first_invalid_utf8(bytes) == bytes.size(); }

std::string text_spelling(const std::string& bytes) { return (is_whole(bytes) ? "" : "bytes:") + spelling(bytes); }

// Of tokens that are spelt alike the likeliest stands there.
OrderedJson text_top(const TokenEntry& entry) {
  OrderedJson top = OrderedJson::object();
  for (const ScoredToken& token : entry.top) {
    const std::string name = text_spelling(token.bytes);
    if (!top.contains(name)) top[name] = shown_logprob(token.logprob);
  }
  const std::string own = text_spelling(entry.token.bytes);
  if (!top.contains(own)) top[own] = shown_logprob(entry.token.logprob);
  return top;
}

}  // namespace

double shown_logprob(float logprob) { return std::max(static_cast<double>(logprob), -9999.0); }

std::string spelling(const std::string& bytes) {
  if (is_whole(bytes)) return bytes;
  std::string text;
  for (const char c : bytes) text += fmt::format("\\x{:02x}", static_cast<unsigned char>(c));
  return text;
}

OrderedJson chat_logprobs(const std::vector<TokenEntry>& entries) {
  OrderedJson content = OrderedJson::array();
  for (const TokenEntry& entry : entries) {
    OrderedJson token = chat_token(entry.token), top = OrderedJson::array();
    for (const ScoredToken& other : entry.top) top.push_back(chat_token(other));
    token["top_logprobs"] = std::move(top);
    content.push_back(std::move(token));
  }
  return {{"content", std::move(content)}, {"refusal", nullptr}};
}

OrderedJson text_logprobs(const std::vector<TokenEntry>& entries) {
  OrderedJson tokens = OrderedJson::array(), logprobs = tokens, tops = tokens, offsets = tokens;
  for (const TokenEntry& entry : entries) {
    tokens.push_back(text_spelling(entry.token.bytes));
    logprobs.push_back(entry.scored ? OrderedJson(shown_logprob(entry.token.logprob)) : OrderedJson());
    tops.push_back(entry.scored ? text_top(entry) : OrderedJson());
    offsets.push_back(entry.text_offset);
  }
  return {{"tokens", std::move(tokens)},
          {"token_logprobs", std::move(logprobs)},
          {"top_logprobs", std::move(tops)},
          {"text_offset", std::move(offsets)}};
}

}  // namespace drover::openai
