#include "launch/grammar/grammar_library.h"

#include <xgrammar/xgrammar.h>

#include <algorithm>
#include <list>
#include <mutex>

#include "kernels/base/error.h"
#include "kernels/base/json.h"
#include "kernels/base/log.h"
#include "launch/grammar/present/whole_characters.h"

namespace drover {

namespace {

// The library's own store, of rules that grammars have in common, and what is kept of whole grammars.
constexpr int64_t kSharedBytes = int64_t{192} << 20;
constexpr size_t kKeptBytes = size_t{256} << 20, kKept = 64;
// Of a grammar as text: the larger it is, the longer its tokens take to be sorted.
constexpr size_t kGrammarBytes = size_t{512} << 10;

class Follower : public TokenFilter {
 public:
  Follower(const xgrammar::CompiledGrammar& grammar, std::shared_ptr<const WholeCharacters> characters,
           const std::vector<int32_t>& stop_ids)
      : tokens_(grammar.GetTokenizerInfo()),
        characters_(std::move(characters)),
        matcher_(grammar, std::vector<int>(stop_ids.begin(), stop_ids.end())) {}

  void allow(std::span<uint32_t> bits) override {
    std::ranges::fill(bits, uint32_t{0});
    if (matcher_.IsTerminated()) return;
    int64_t size = static_cast<int64_t>(bits.size());
    DLTensor tensor{.data = bits.data(),
                    .device = {kDLCPU, 0},
                    .ndim = 1,
                    .dtype = xgrammar::GetBitmaskDLType(),
                    .shape = &size,
                    .strides = nullptr,
                    .byte_offset = 0};
    try {
      matcher_.FillNextTokenBitmask(&tensor);
      // The last word has bits of no token.
      if (const int beyond = tokens_.GetVocabSize() % 32; beyond != 0) bits.back() &= (uint32_t{1} << beyond) - 1;
      characters_->narrow(pending_, bits);
    } catch (const std::exception& error) {  // this answer ends here; others go on
      log::warn("a grammar does not say which tokens may come: {}", clipped(error.what()));
      std::ranges::fill(bits, uint32_t{0});
    }
  }

  bool accept(int32_t token) override {
    if (matcher_.IsTerminated() || token < 0 || token >= tokens_.GetVocabSize()) return false;
    const auto& ends = matcher_.GetStopTokenIds();
    std::optional<std::string> pending = std::string();
    if (std::ranges::find(ends, token) == ends.end()) {
      const std::string& bytes = tokens_.GetDecodedVocab()[static_cast<size_t>(token)];
      pending = WholeCharacters::pending_after(pending_ + bytes);
      if (bytes.empty() || !pending) return false;
    }
    if (!matcher_.AcceptToken(token)) return false;
    pending_ = *pending;
    return true;
  }

 private:
  xgrammar::TokenizerInfo tokens_;
  std::shared_ptr<const WholeCharacters> characters_;
  xgrammar::GrammarMatcher matcher_;
  std::string pending_;  // bytes of a character
};

std::string reason_of(const xgrammar::StructuralTagError& error) {
  return std::visit([](const auto& e) { return std::string(e.what()); }, error);
}

}  // namespace

struct GrammarLibrary::State {
  struct Kept {
    std::string tag;
    xgrammar::CompiledGrammar grammar;
  };

  explicit State(const std::vector<std::string>& tokens)
      : tokens(tokens, xgrammar::VocabType::RAW, std::nullopt, std::vector<int32_t>{}),
        characters(std::make_shared<WholeCharacters>(tokens)),
        compiler(this->tokens, 1, true, kSharedBytes) {}

  std::optional<xgrammar::CompiledGrammar> look_up(const std::string& tag);
  xgrammar::CompiledGrammar compile(const std::string& tag);
  void keep(const std::string& tag, const xgrammar::CompiledGrammar& grammar);

  xgrammar::TokenizerInfo tokens;
  std::shared_ptr<const WholeCharacters> characters;
  std::mutex compiling;  // of `compiler`
  xgrammar::GrammarCompiler compiler;
  std::mutex looking;    // of what follows
  std::list<Kept> kept;  // the one that was asked for last comes first
  size_t kept_bytes = 0;
};

std::optional<xgrammar::CompiledGrammar> GrammarLibrary::State::look_up(const std::string& tag) {
  const std::lock_guard lock(looking);
  const auto found = std::ranges::find(kept, tag, &Kept::tag);
  if (found == kept.end()) return {};
  kept.splice(kept.begin(), kept, found);
  return kept.front().grammar;
}

void GrammarLibrary::State::keep(const std::string& tag, const xgrammar::CompiledGrammar& grammar) {
  const std::lock_guard lock(looking);
  kept.push_front({tag, grammar});
  kept_bytes += grammar.MemorySizeBytes();
  while (kept.size() > 1 && (kept.size() > kKept || kept_bytes > kKeptBytes)) {
    kept_bytes -= kept.back().grammar.MemorySizeBytes();
    kept.pop_back();
  }
}

xgrammar::CompiledGrammar GrammarLibrary::State::compile(const std::string& tag) {
  const std::lock_guard lock(compiling);
  if (const auto known = look_up(tag)) return *known;  // another thread was faster
  try {
    const auto read = xgrammar::Grammar::FromStructuralTag(tag, tokens);
    if (const auto* error = std::get_if<xgrammar::StructuralTagError>(&read)) {
      fail(Fault::bad_data, "no grammar can be made of the schema: {}", clipped(reason_of(*error), 300));
    }
    const xgrammar::Grammar& grammar = std::get<xgrammar::Grammar>(read);
    const size_t bytes = grammar.ToString().size();
    if (bytes > kGrammarBytes) {
      fail(Fault::bad_data, "the schema's grammar has {} bytes; {} are the most; ask for less at once", bytes,
           kGrammarBytes);
    }
    // From the tag: the grammar as text is not always the same grammar ("\xb0C" becomes one character).
    const xgrammar::CompiledGrammar compiled = compiler.CompileStructuralTag(tag);
    keep(tag, compiled);
    return compiled;
  } catch (const Error&) {
    throw;
  } catch (const std::exception& error) {
    compiler.ClearCache();  // it would keep failures for ever
    fail(Fault::bad_data, "no grammar can be made of the schema: {}", clipped(error.what(), 300));
  }
}

GrammarLibrary::GrammarLibrary(const std::vector<std::string>& tokens) : state_(std::make_unique<State>(tokens)) {}
GrammarLibrary::~GrammarLibrary() = default;

std::string GrammarLibrary::name() { return "xgrammar " DROVER_XGRAMMAR_VERSION; }

std::shared_ptr<TokenFilter> GrammarLibrary::filter(const std::string& tag, std::span<const int32_t> stop_ids) {
  std::vector<int32_t> ends;
  for (const int32_t id : stop_ids) {
    if (id >= 0 && id < state_->tokens.GetVocabSize()) ends.push_back(id);
  }
  if (ends.empty()) fail(Fault::bad_data, "an answer that follows a grammar needs a stop token, by which it can end");
  const auto known = state_->look_up(tag);
  return std::make_shared<Follower>(known ? *known : state_->compile(tag), state_->characters, ends);
}

}  // namespace drover
