// A whole model ready to answer: weights, perhaps an adapter, a key/value cache. Under tensor parallelism every rank of the world holds a share
// and all ranks make the same calls.
#pragma once
#include <memory>
#include <optional>

#include "data/chat_template.h"
#include "model/decoder.h"
#include "model/files/model_directory.h"
#include "model/files/peft.h"
#include "model/sampling.h"
#include "trainer/setup.h"

namespace drover {

struct InferenceSettings {
  fs::path model;
  std::optional<fs::path> adapter;  // PEFT
  DType dtype = DType::bf16;
  int64_t sequences = 8;            // answered at once
  int64_t capacity_tokens = 0;      // prompt and answer; 0: as much as the model's positions allow, at most 4096
};

class Inference {
 public:
  Inference(const InferenceSettings& settings, Mesh& mesh, int threads);

  const Tokenizer& tokenizer() const { return *tokenizer_; }
  const std::optional<ChatTemplate>& chat() const { return chat_; }
  Decoder& decoder() { return *decoder_; }
  int64_t capacity_tokens() const { return capacity_; }

  struct Answer {
    std::vector<int32_t> ids;  // without the stop token
    bool stopped = false;      // false: the limit was reached
  };
  struct Question {
    std::vector<int32_t> ids;
    uint64_t number = 0;  // names its random draws
  };
  // Answers up to `sequences` questions together.
  std::vector<Answer> answer(std::span<const Question> questions, const Sampling& sampling, int64_t max_tokens);

  // The ids of a prompt: through the chat template where the model has one and `raw` is false.
  std::vector<int32_t> prompt_ids(const std::vector<Message>& dialog, bool raw) const;

 private:
  std::optional<ModelDirectory> directory_;
  std::optional<Tokenizer> tokenizer_;
  std::optional<ChatTemplate> chat_;
  std::vector<int32_t> stop_ids_;
  int64_t capacity_ = 0;
  std::unique_ptr<Backend> backend_;
  std::vector<std::unique_ptr<Arena>> arenas_;
  std::unique_ptr<AdapterSet> adapter_;
  std::unique_ptr<Stage> stage_;
  std::unique_ptr<Decoder> decoder_;
};

}  // namespace drover
