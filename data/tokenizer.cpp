#include "data/tokenizer.h"

#include "kernels/base/error.h"
#include "kernels/base/hash.h"
#include "kernels/base/log.h"
#include "kernels/base/unicode.h"

namespace drover {

namespace {

constexpr size_t kLargestFileBytes = size_t{64} << 20;

void check_utf8(std::string_view text) {
  const size_t bad = first_invalid_utf8(text);
  if (bad != text.size()) fail(Fault::bad_data, "the text is not valid UTF-8 at byte {}; convert it to UTF-8", bad);
}

}  // namespace

Tokenizer Tokenizer::open(const fs::path& directory) {
  if (!fs::is_directory(directory)) {
    fail(Fault::missing_input, "{} is not a directory; a tokenizer's directory holds tokenizer.json or tokenizer.model",
         directory.string());
  }
  const fs::path with_json = directory / "tokenizer.json", with_ranks = directory / "tokenizer.model",
                 config_file = directory / "tokenizer_config.json";
  if (!fs::exists(with_json) && !fs::exists(with_ranks)) {
    fail(Fault::missing_input,
         "{} holds neither tokenizer.json nor tokenizer.model; copy the model's tokenizer there or set model.tokenizer",
         directory.string());
  }
  const bool json = fs::exists(with_json);
  const fs::path file = json ? with_json : with_ranks;
  const std::string text = read_text(file, kLargestFileBytes);
  Config config;
  std::string config_text;
  if (fs::exists(config_file)) {
    config_text = read_text(config_file, kLargestFileBytes);
    config = read_config(config_file, config_text);
  }
  Tokenizer tokenizer(json ? read_json(file, text, config) : read_ranks(file, text, config));
  if (json) tokenizer.warn_about(config, config_file);
  Sha256 hash;
  hash.update(text.data(), text.size());
  hash.update(config_text.data(), config_text.size());
  tokenizer.fingerprint_ = hash.hex();
  return tokenizer;
}

Tokenizer::Tokenizer(Definition d)
    : words_(std::move(d.words)),
      texts_(std::move(d.texts)),
      bos_(d.bos),
      eos_(d.eos),
      unknown_(d.unknown),
      before_(std::move(d.before)),
      after_(std::move(d.after)),
      marks_every_part_(d.marks_every_part) {
  for (const AddedToken& a : d.added) {
    if (a.special) {
      special_by_id_[a.id] = a.spelling;
      special_by_spelling_[a.spelling] = a.id;
    }
    const std::optional<Normalized> normalized = a.normalized ? words_->normalized({a.spelling}) : std::nullopt;
    if (!normalized) {
      rounds_[a.normalized].add(a, a.spelling);
    } else if (!normalized->text.empty()) {
      rounds_[1].add(a, normalized->text);
      texts_.set(a.id, normalized->text);  // as Hugging Face's prints it
    }
  }
}

void Tokenizer::warn_about(const Config& config, const fs::path& file) const {
  const auto check = [&](const char* key, std::optional<bool> said, const std::vector<int32_t>& frame,
                         const char* end) {
    if (!said || *said == !frame.empty()) return;
    log::warn("{}: {}: {} does not count, as in transformers: tokenizer.json's post_processor puts {} {} a text",
              file.string(), key, *said, frame.empty() ? "nothing" : decode(frame, false), end);
  };
  check("add_bos_token", config.adds_bos, before_, "before");
  check("add_eos_token", config.adds_eos, after_, "behind");
  const bool is_rebuilt = config.tokenizer_class == "LlamaTokenizer" || config.tokenizer_class == "LlamaTokenizerFast";
  if (is_rebuilt && marks_every_part_) {
    log::warn(
        "{}: for tokenizer_class {} transformers 5 writes other ids than tokenizer.json says where text follows a "
        "control "
        "token: without the mark of a space before it. Drover follows tokenizer.json, as tokenizers does; with "
        "tokenizer_class PreTrainedTokenizerFast transformers 5 does too",
        file.string(), config.tokenizer_class);
  }
}

std::optional<int32_t> Tokenizer::special(const std::string& spelling) const {
  const auto found = special_by_spelling_.find(spelling);
  if (found == special_by_spelling_.end()) return std::nullopt;
  return found->second;
}

void Tokenizer::encode_around(size_t round, const Stretch& stretch, const Output& out) const {
  if (stretch.text.empty()) return;
  if (round == std::size(rounds_)) return words_->encode(stretch, out.ids, out.begins);
  const std::optional<Normalized> normalized = round == 1 ? words_->normalized(stretch) : std::nullopt;
  const Stretch here = normalized ? Stretch{normalized->text, normalized->origins.data()} : stretch;
  // Where a token's spelling begins: a mark that the normalizer made of nothing, or of a space, is not its own.
  const auto spelled = [&](const AddedTokens::Found& found) {
    const size_t more = found.end - found.begin;
    const size_t own = found.token->spelling.size();
    return here.origin(normalized && more > own ? found.end - own : found.begin);
  };
  const auto may_stand = [&](const AddedTokens::Found& found) {
    if (!found.token->special || out.specials != Output::Specials::within) return true;
    const size_t begin = spelled(found), end = here.origin(found.end - 1) + 1;
    const auto range = std::ranges::upper_bound(out.written, begin, {}, &Range::end);  // the first that ends behind it
    return range != out.written.end() && range->begin <= begin && end <= range->end;
  };
  const auto passes = [&](const AddedToken& token) { return !token.special || out.specials != Output::Specials::text; };
  const auto between = [&](size_t begin, size_t end) { encode_around(round + 1, here.part(begin, end), out); };
  const auto on_found = [&](const AddedTokens::Found& found) {
    out.ids.push_back(found.token->id);
    if (out.begins) out.begins->push_back(spelled(found));
  };
  rounds_[round].split(here.text, may_stand, passes, between, on_found);
}

std::vector<int32_t> Tokenizer::encode(std::string_view text, std::vector<size_t>* begins) const {
  check_utf8(text);
  std::vector<int32_t> ids;
  if (begins) begins->clear();
  encode_around(0, {text}, {ids, begins});
  return ids;
}

std::vector<int32_t> Tokenizer::encode_special(std::string_view text) const {
  check_utf8(text);
  std::vector<int32_t> ids;
  encode_around(0, {text}, {ids, nullptr, Output::Specials::everywhere});
  return ids;
}

std::vector<int32_t> Tokenizer::encode_document(std::string_view text) const {
  const std::vector<int32_t> words = encode(text);
  std::vector<int32_t> ids = before_;
  ids.insert(ids.end(), words.begin(), words.end());
  ids.insert(ids.end(), after_.begin(), after_.end());
  return ids;
}

std::vector<int32_t> Tokenizer::encode_rendered(std::string_view text, std::span<const Range> written,
                                                std::vector<size_t>& begins) const {
  check_utf8(text);
  std::vector<int32_t> ids;
  begins.clear();
  encode_around(0, {text}, {ids, &begins, Output::Specials::within, written});
  return ids;
}

std::string Tokenizer::decode(std::span<const int32_t> ids, bool skip_special) const {
  TextBuilder text(texts_, true);
  std::string whole;
  for (int32_t id : ids) {
    if (!skip_special || !is_special(id)) whole += text.push(id);
  }
  return whole + text.finish();
}

}  // namespace drover
