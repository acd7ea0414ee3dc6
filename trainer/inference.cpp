#include "trainer/inference.h"

#include <algorithm>

#include "kernels/comm/agree.h"
#include "kernels/count/count.h"
#include "trainer/export.h"

namespace drover {

namespace {

constexpr int64_t kPassTokens = 512;  // of a prompt at once

struct Parts {
  std::unique_ptr<AdapterSet> adapter;
  std::unique_ptr<Stage> stage;
  std::unique_ptr<Decoder> decoder;
};

Parts build(const ModelConfig& config, const AdapterLayout& layout, const InferenceSettings& s, int64_t capacity, Mesh& mesh, Backend& backend, WeightSource& source,
            const std::vector<Arena*>& arenas) {
  Parts p;
  const Placement placement{mesh.position.tp, mesh.shape.tp, 0, config.layers, true, true};
  if (!layout.empty()) p.adapter = std::make_unique<AdapterSet>(config, layout, placement, s.dtype, backend, *arenas[1], nullptr);
  p.stage = std::make_unique<Stage>(config, placement, s.dtype, capacity, *mesh.tp, backend, *arenas[0], source, p.adapter.get());
  p.decoder = std::make_unique<Decoder>(*p.stage, backend, *arenas[2], *arenas[3], s.sequences, capacity);
  return p;
}

// Bytes of {weights, adapter, cache, scratch}: the same parts on Count, one prompt pass and one step of all sequences.
std::vector<int64_t> plan(const ModelConfig& config, const AdapterLayout& layout, const InferenceSettings& s, int64_t capacity, const Mesh& mesh) {
  CountBackend backend;
  Mesh counted = make_count_mesh(mesh.shape, mesh.position);
  NoWeights nothing;
  std::vector<std::unique_ptr<Arena>> owned;
  std::vector<Arena*> arenas;
  for (const char* name : {"weights", "adapter", "cache", "scratch"}) arenas.push_back(owned.emplace_back(std::make_unique<Arena>(name, backend.memory(), int64_t{1} << 46)).get());
  Parts parts = build(config, layout, s, capacity, counted, backend, nothing, arenas);
  const Decoder::Input prompt[] = {{0, std::vector<int32_t>(static_cast<size_t>(std::min(kPassTokens, capacity)))}};
  parts.decoder->append(prompt);
  parts.decoder->clear(0);
  std::vector<Decoder::Input> together;
  for (int64_t i = 0; i < s.sequences; ++i) together.push_back({i, {0}});
  parts.decoder->append(together);
  return {arenas[0]->peak_bytes(), arenas[1]->peak_bytes(), arenas[2]->peak_bytes(), arenas[3]->peak_bytes()};
}

}  // namespace

Inference::Inference(const InferenceSettings& s, Mesh& mesh, int threads) {
  AdapterLayout layout;
  together(*mesh.world, [&] {
    directory_.emplace(s.model);
    check_weights(*directory_);
    const ModelConfig& config = directory_->config();
    tokenizer_.emplace(Tokenizer::open(s.model));
    chat_ = ChatTemplate::find(s.model);
    stop_ids_ = stop_ids(chat_, *tokenizer_, config.eos);
    if (s.adapter) layout = adapter_layout_of(config, adapter_config_in(*s.adapter));
    const std::string why = why_not_tp(config, mesh.shape.tp);
    if (!why.empty()) fail(Exit::bad_recipe, "{}", why);
    capacity_ = s.capacity_tokens > 0 ? s.capacity_tokens : std::min<int64_t>(config.max_positions, 4096);
    if (capacity_ > config.max_positions) fail(Exit::bad_data, "prompt and answer have {} tokens; the model has {} positions", capacity_, config.max_positions);
  });
  const ModelConfig& config = directory_->config();
  backend_ = make_cpu_backend(threads);
  const std::vector<int64_t> bytes = plan(config, layout, s, capacity_, mesh);
  std::vector<Arena*> arenas;
  constexpr const char* kNames[] = {"weights", "adapter", "cache", "scratch"};
  for (size_t i = 0; i < 4; ++i) arenas.push_back(arenas_.emplace_back(std::make_unique<Arena>(kNames[i], backend_->memory(), bytes[i])).get());
  DirectoryWeights source(*directory_);
  Parts parts = build(config, layout, s, capacity_, mesh, *backend_, source, arenas);
  adapter_ = std::move(parts.adapter);
  stage_ = std::move(parts.stage);
  decoder_ = std::move(parts.decoder);
  together(*mesh.world, [&] {
    if (adapter_) load_adapter(*s.adapter, *adapter_);
  });
}

std::vector<int32_t> Inference::prompt_ids(const std::vector<Message>& dialog, bool raw) const {
  if (chat_ && !raw) return render(dialog, *chat_, *tokenizer_, {.add_generation_prompt = true}).ids;
  std::vector<int32_t> ids;
  if (tokenizer_->adds_bos() && tokenizer_->bos()) ids.push_back(*tokenizer_->bos());
  std::string text;
  for (const Message& m : dialog) text += m.content;
  const std::vector<int32_t> words = tokenizer_->encode(text);
  ids.insert(ids.end(), words.begin(), words.end());
  return ids;
}

std::vector<Inference::Answer> Inference::answer(std::span<const Question> questions, const Sampling& sampling, int64_t max_tokens) {
  struct State {
    std::vector<float> logits;
    bool open = true;
  };
  std::vector<State> states(questions.size());
  std::vector<Answer> answers(questions.size());
  for (size_t q = 0; q < questions.size(); ++q) {
    const std::vector<int32_t>& ids = questions[q].ids;
    if (ids.empty()) fail(Exit::bad_data, "a prompt without tokens cannot be answered; give it some text");
    if (static_cast<int64_t>(ids.size()) >= capacity_) {
      fail(Exit::bad_data, "the prompt has {} tokens; prompt and answer together may have {}", ids.size(), capacity_);
    }
    decoder_->clear(static_cast<int64_t>(q));
    for (size_t begin = 0; begin < ids.size(); begin += kPassTokens) {
      const size_t end = std::min(ids.size(), begin + kPassTokens);
      const Decoder::Input part[] = {{static_cast<int64_t>(q), {ids.begin() + static_cast<std::ptrdiff_t>(begin), ids.begin() + static_cast<std::ptrdiff_t>(end)}}};
      states[q].logits = decoder_->append(part).front();
    }
  }
  for (int64_t index = 0; index < max_tokens; ++index) {
    std::vector<Decoder::Input> next;
    for (size_t q = 0; q < questions.size(); ++q) {
      if (!states[q].open) continue;
      const int32_t id = sample_token(states[q].logits, sampling, questions[q].number, static_cast<uint64_t>(index));
      if (std::find(stop_ids_.begin(), stop_ids_.end(), id) != stop_ids_.end()) {
        answers[q].stopped = true;
        states[q].open = false;
        continue;
      }
      answers[q].ids.push_back(id);
      if (index + 1 == max_tokens || decoder_->length(static_cast<int64_t>(q)) == capacity_) {
        states[q].open = false;
        continue;
      }
      next.push_back({static_cast<int64_t>(q), {id}});
    }
    if (next.empty()) break;
    std::vector<std::vector<float>> logits = decoder_->append(next);
    for (size_t i = 0; i < next.size(); ++i) states[static_cast<size_t>(next[i].sequence)].logits = std::move(logits[i]);
  }
  return answers;
}

}  // namespace drover
