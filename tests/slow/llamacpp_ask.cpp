// What llama.cpp makes of a model: text to ids, greedy answers, and the probabilities of given ids. Requests and
// answers are JSON, one a line: {"tokenize": TEXT, "special": BOOL} → {"ids"}; {"generate": IDS, "max_tokens": N} →
// {"ids", "gaps"}; {"score": IDS, "from": K} → {"logprobs", "top", "gaps"} of ids K and on. A gap is that of the two
// largest logits. Built by tests/slow/llamacpp. Usage: llamacpp_ask MODEL.gguf [ADAPTER.gguf] < requests
#include <llama.h>

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <iostream>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

namespace {

using nlohmann::json;
using Ids = std::vector<llama_token>;

constexpr uint32_t kPositions = 2048;

[[noreturn]] void give_up(const std::string& what) {
  std::fprintf(stderr, "llamacpp_ask: %s\n", what.c_str());
  std::exit(1);
}

struct Prediction {
  llama_token top = 0;
  double gap = 0, log_sum = 0;  // log_sum: ln Σ exp(logit)
};

class Model {
 public:
  Model(const char* file, const char* adapter) {
    llama_log_set(
        [](ggml_log_level level, const char* text, void*) {
          if (level == GGML_LOG_LEVEL_ERROR) std::fputs(text, stderr);
        },
        nullptr);
    model_ = llama_model_load_from_file(file, llama_model_default_params());
    if (model_ == nullptr) give_up(std::string("cannot load ") + file);
    llama_context_params params = llama_context_default_params();
    params.n_ctx = params.n_batch = kPositions;
    context_ = llama_init_from_model(model_, params);
    if (context_ == nullptr) give_up("no context");
    vocabulary_ = llama_model_get_vocab(model_);
    if (adapter == nullptr) return;
    llama_adapter_lora* lora = llama_adapter_lora_init(model_, adapter);
    if (lora == nullptr) give_up(std::string("cannot load ") + adapter);
    float scale = 1;
    if (llama_set_adapters_lora(context_, &lora, 1, &scale) != 0) give_up("the adapter is not taken");
  }

  json answer(const json& request) {
    if (request.contains("tokenize")) return {{"ids", tokenize(request.at("tokenize"), request.at("special"))}};
    if (request.contains("generate")) return generate(request.at("generate"), request.at("max_tokens"));
    return score(request.at("score"), request.at("from"));
  }

 private:
  Ids tokenize(const std::string& text, bool special) const {
    Ids ids(text.size() + 8);
    const int32_t count = llama_tokenize(vocabulary_, text.data(), static_cast<int32_t>(text.size()), ids.data(),
                                         static_cast<int32_t>(ids.size()), false, special);
    if (count < 0) give_up("more ids than bytes");
    ids.resize(static_cast<size_t>(count));
    return ids;
  }

  // Puts `ids` behind what was read, and calls seen(i, logits) for every one from `wanted` on.
  template <typename Seen>
  void read(const Ids& ids, size_t wanted, const Seen& seen) {
    llama_batch batch = llama_batch_init(static_cast<int32_t>(ids.size()), 0, 1);
    batch.n_tokens = static_cast<int32_t>(ids.size());
    for (size_t i = 0; i < ids.size(); ++i) {
      batch.token[i] = ids[i];
      batch.pos[i] = position_++;
      batch.n_seq_id[i] = 1;
      batch.seq_id[i][0] = 0;
      batch.logits[i] = i >= wanted;
    }
    if (llama_decode(context_, batch) != 0) give_up("llama_decode failed");
    for (size_t i = wanted; i < ids.size(); ++i) seen(i, llama_get_logits_ith(context_, static_cast<int32_t>(i)));
    llama_batch_free(batch);
  }

  void forget() {
    llama_memory_clear(llama_get_memory(context_), true);
    position_ = 0;
  }

  Prediction prediction(const float* logits) const {
    const int32_t count = llama_vocab_n_tokens(vocabulary_);
    Prediction p;
    for (llama_token id = 1; id < count; ++id) {
      if (logits[id] > logits[p.top]) p.top = id;
    }
    double second = -INFINITY, sum = 0;
    for (llama_token id = 0; id < count; ++id) {
      if (id != p.top) second = std::max<double>(second, logits[id]);
      sum += std::exp(static_cast<double>(logits[id]) - logits[p.top]);
    }
    p.gap = logits[p.top] - second;
    p.log_sum = logits[p.top] + std::log(sum);
    return p;
  }

  json generate(const Ids& prompt, size_t max_tokens) {
    forget();
    Ids answer, next = prompt;
    std::vector<double> gaps;
    while (answer.size() < max_tokens) {
      Prediction p;
      read(next, next.size() - 1, [&](size_t, const float* logits) { p = prediction(logits); });
      gaps.push_back(p.gap);
      if (llama_vocab_is_eog(vocabulary_, p.top)) break;
      answer.push_back(p.top);
      next = {p.top};
    }
    return {{"ids", answer}, {"gaps", gaps}};
  }

  json score(const Ids& ids, size_t from) {
    forget();
    json out = {{"logprobs", json::array()}, {"top", json::array()}, {"gaps", json::array()}};
    read(ids, from - 1, [&](size_t i, const float* logits) {
      if (i + 1 == ids.size()) return;
      const Prediction p = prediction(logits);
      out["logprobs"].push_back(logits[ids[i + 1]] - p.log_sum);
      out["top"].push_back(p.top);
      out["gaps"].push_back(p.gap);
    });
    return out;
  }

  llama_model* model_ = nullptr;
  llama_context* context_ = nullptr;
  const llama_vocab* vocabulary_ = nullptr;
  llama_pos position_ = 0;
};

}  // namespace

int main(int argc, char** argv) {
  if (argc < 2) give_up("usage: llamacpp_ask MODEL.gguf [ADAPTER.gguf] < requests");
  Model model(argv[1], argc > 2 ? argv[2] : nullptr);
  for (std::string line; std::getline(std::cin, line);)
    std::cout << model.answer(json::parse(line)).dump() << std::endl;
}
