// One pass of several sequences' next tokens through the blocks that train: a prompt's chunks and single tokens of
// answers side by side, keys and values in a KvPool. Under pipeline parallelism the pass travels from stage to stage,
// the last one chooses, and every rank gets what was chosen. All ranks that share the model make the same calls.
#pragma once
#include <span>
#include <vector>

#include "kernels/comm/mesh.h"
#include "kernels/replay.h"
#include "model/generation/kv_pool.h"
#include "model/generation/sampling.h"
#include "model/generation/token_filter.h"

namespace drover {

class Decoder {
 public:
  // `scratch` holds what a pass needs; of `mesh`, whose tensors are the backend's, tp and pp are used.
  Decoder(const Stage& stage, const Mesh& mesh, Backend& backend, KvPool& pool, Arena& scratch);

  struct Input {
    CachedSequence* sequence;      // has the blocks for these tokens already
    std::span<const int32_t> ids;  // the sequence's next tokens, at least one
    // How the token behind them is chosen; null: none is, and the rest is not read.
    const Sampling* sampling = nullptr;
    Draw draw = {};
    TokenFilter* filter = nullptr;                 // which tokens may come; null: all
    int slot = kOwnSlot;                           // of its adapter (AdapterPool); kBaseModel: none
    std::span<const int32_t> prompt, answer = {};  // all tokens so far, for penalties
    // Of which tokens the log-probability is asked, as those that follow row `first_row`, the next one, …
    struct Scoring {
      int64_t first_row = 0;  // of this input's
      std::span<const int32_t> tokens = {};
      int64_t top = 0;                        // so many of the likeliest come with each
      std::vector<Chosen>* scores = nullptr;  // gets them, at its end
    };
    Scoring scored = {};
  };
  // Appends the tokens to their sequences, and scores those that are asked for. The token that follows each input that
  // has a `sampling`, in the inputs' order.
  std::vector<Chosen> append(std::span<const Input> inputs);

  // From now on a pass of single tokens of one adapter, or of none, that asks for no more than a choice is padded to 1,
  // 2, 4, … rows, at most `rows`, and replayed where the backend can: rows beyond the last one repeat it, and write
  // what it writes. Only where one rank has the whole model; before the call none is.
  void replay_up_to(int64_t rows) { most_replayed_ = rows; }

  // Appends too, and gives the logits (vocab) of each input's last token. For a model that lies on one stage.
  std::vector<std::vector<float>> append_for_logits(std::span<const Input> inputs);

  // Takes from the scratch what a pass of `rows` tokens takes, of which `chosen` choose so, for plans.
  // `filtered`: each has a filter; `scored`: so many of the likeliest tokens may be asked for at each row.
  void rehearse(int64_t rows, int64_t chosen, const Sampling& sampling, bool filtered,
                std::optional<int64_t> scored = {});

  KvPool& pool() { return pool_; }
  const Stage& stage() const { return stage_; }

 private:
  // Rows of a pass, on the host.
  struct Rows {
    std::vector<int32_t> ids, positions, cache_rows;
    std::vector<Segment> segments;
    std::vector<AdapterRows> adapters;
  };
  Rows take(std::span<const Input> inputs);  // their sequences have these tokens from now on
  bool replays(std::span<const Input> inputs) const;
  std::vector<Chosen> replayed(std::span<const Input> inputs);
  // The residual stream behind the last block, (rows, D); empty where another stage has it.
  Tensor pass(Frame& frame, std::span<const Input> inputs);
  // (rows, vocab) f32, each with its adapter
  Tensor logits(Frame& frame, Tensor x, Tensor rows, std::span<const AdapterRows> adapters);
  struct Choices {
    Tensor tokens;                    // (N) i32
    Tensor logprobs;                  // (N) f32; empty where nobody asks for them, as the next two
    Tensor top_tokens, top_logprobs;  // (N,k) i32, f32
  };
  Choices make_choices(Frame& frame, int64_t rows, std::optional<int64_t> top);
  void share(const Choices& choices);  // the last stage's, with all others
  void choose(Frame& frame, Tensor logits, std::span<const Input* const> choosing, const Choices& choices);
  void penalize(Frame& frame, Tensor logits, std::span<const Input* const> choosing);
  void allow(Frame& frame, Tensor logits, std::span<const Input* const> choosing);
  std::vector<Chosen> read(std::span<const std::optional<int64_t>> tops, const Choices& choices);
  static constexpr int64_t kScoredRows = 64;  // whose logits are there at once
  void score(Tensor x, std::span<const Input> inputs);
  template <typename T>
  Tensor upload(Frame& frame, const std::vector<T>& host);
  Context context(Tensor ids, Tensor positions, Tensor cache_rows, std::span<const Segment> segments,
                  std::span<const AdapterRows> adapters);

  const Stage& stage_;
  Communicator& pp_;
  Backend& backend_;
  PassReplays* replays_;  // null: the backend cannot, or several ranks have the model
  int64_t most_replayed_ = 0;
  KvPool& pool_;
  Arena& scratch_;
};

}  // namespace drover
