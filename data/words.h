// How a tokenizer makes ids of a text without added tokens; there are two kinds. Immutable and safe to share between
// threads.
#pragma once
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "data/bpe.h"
#include "data/character_bpe.h"
#include "data/pre_tokenizer.h"

namespace drover {

// A text as it was changed, and for each of its bytes the offset of what it came from.
struct Normalized {
  std::string text;
  std::vector<size_t> origins;
};

// A part of a text: where its bytes stand in the whole, one by one in `origins`, or in a row from `offset` on.
struct Stretch {
  std::string_view text;
  const size_t* origins = nullptr;
  size_t offset = 0;
  size_t origin(size_t i) const { return origins != nullptr ? origins[i] : offset + i; }
  Stretch part(size_t begin, size_t end) const {
    return {text.substr(begin, end - begin), origins != nullptr ? origins + begin : nullptr, offset + begin};
  }
};

class Words {
 public:
  Words() = default;
  Words(const Words&) = delete;
  Words& operator=(const Words&) = delete;
  virtual ~Words() = default;
  // What the tokenizer's normalizer makes of a stretch, or nothing where it leaves every text as it is.
  virtual std::optional<Normalized> normalized(const Stretch& stretch) const = 0;
  // Appends ids and, where `begins` is given, the origin of each one's first byte. Expects valid UTF-8.
  virtual void encode(const Stretch& stretch, std::vector<int32_t>& ids, std::vector<size_t>* begins) const = 0;
};

// Llama 3's kind, and GPT-2's: words by a regular expression, then BPE over bytes.
class ByteLevelWords : public Words {
 public:
  ByteLevelWords(PreTokenizer::Kind kind, Bpe bpe) : pre_(kind), bpe_(std::move(bpe)) {}
  std::optional<Normalized> normalized(const Stretch& stretch) const override;
  void encode(const Stretch& stretch, std::vector<int32_t>& ids, std::vector<size_t>* begins) const override;

 private:
  PreTokenizer pre_;
  Bpe bpe_;
};

// Llama 2's kind, from SentencePiece: spaces become marks (▁), then BPE over characters.
class MarkedWords : public Words {
 public:
  // A normalizer's step.
  struct Step {
    enum class Kind { prepend, replace };
    Kind kind = Kind::prepend;
    std::string pattern;  // replace: every place where it stands
    std::string content;
  };
  // The pre_tokenizer Metaspace.
  struct Metaspace {
    enum class Prepend { always, first, never };
    std::string mark = "▁";
    Prepend prepend =
        Prepend::always;  // before a stretch that does not begin with a mark; first: only the text's first
    bool split = true;    // words begin with a mark
  };
  MarkedWords(std::vector<Step> steps, std::optional<Metaspace> metaspace, CharacterBpe bpe)
      : steps_(std::move(steps)), metaspace_(std::move(metaspace)), bpe_(std::move(bpe)) {}
  std::optional<Normalized> normalized(const Stretch& stretch) const override;
  void encode(const Stretch& stretch, std::vector<int32_t>& ids, std::vector<size_t>* begins) const override;

 private:
  void encode_piece(const Stretch& piece, std::vector<int32_t>& ids, std::vector<size_t>* begins) const;

  std::vector<Step> steps_;
  std::optional<Metaspace> metaspace_;
  CharacterBpe bpe_;
};

}  // namespace drover
