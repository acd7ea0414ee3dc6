#include "data/tokenizer.h"

#include <algorithm>

#include "kernels/base/error.h"
#include "kernels/base/hash.h"
#include "kernels/base/json.h"

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
                 config = directory / "tokenizer_config.json";
  if (!fs::exists(with_json) && !fs::exists(with_ranks)) {
    fail(Fault::missing_input,
         "{} holds neither tokenizer.json nor tokenizer.model; copy the model's tokenizer there or set model.tokenizer",
         directory.string());
  }
  const bool json = fs::exists(with_json);
  const fs::path file = json ? with_json : with_ranks;
  const std::string text = read_text(file, kLargestFileBytes);
  Tokenizer tokenizer(json ? read_json(file, text) : read_ranks(file, text));
  std::string config_text;
  if (fs::exists(config)) {
    config_text = read_text(config, kLargestFileBytes);
    tokenizer.read_config(config, config_text);
  }
  if (tokenizer.adds_bos_ && !tokenizer.bos_) {
    fail(Fault::bad_data,
         "{}: text is to begin with a BOS token, but no file names one; set bos_token in tokenizer_config.json to a "
         "special token",
         file.string());
  }
  Sha256 hash;
  hash.update(text.data(), text.size());
  hash.update(config_text.data(), config_text.size());
  tokenizer.fingerprint_ = hash.hex();
  return tokenizer;
}

Tokenizer::Tokenizer(const Definition& d)
    : bpe_(d.tokens, d.merges, d.whole_first), pre_(d.kind), adds_bos_(d.adds_bos), bos_(d.bos), eos_(d.eos) {
  size_t size = 0;
  for (const auto& [bytes, id] : d.tokens) size = std::max(size, static_cast<size_t>(id) + 1);
  for (const Added& a : d.added) size = std::max(size, static_cast<size_t>(a.id) + 1);
  bytes_.resize(size);
  for (const auto& [bytes, id] : d.tokens) bytes_[static_cast<size_t>(id)] = bytes;
  for (const Added& a : d.added) {
    bytes_[static_cast<size_t>(a.id)] = a.spelling;
    const size_t first = static_cast<unsigned char>(a.spelling.front());
    all_[a.normalized][first].push_back(a);
    if (a.special) {
      special_by_id_[a.id] = a.spelling;
      special_by_spelling_[a.spelling] = a.id;
    } else {
      ordinary_[a.normalized][first].push_back(a);
    }
  }
  for (Rounds* rounds : {&ordinary_, &all_}) {
    for (AddedByFirstByte& table : *rounds) {
      for (std::vector<Added>& same : table) {
        std::sort(same.begin(), same.end(),
                  [](const Added& a, const Added& b) { return a.spelling.size() > b.spelling.size(); });
      }
    }
  }
}

void Tokenizer::read_config(const fs::path& file, const std::string& text) {
  try {
    const Json config = parse_json(text, file.string());
    if (!config.is_object())
      fail(Fault::bad_data, "{} is not a tokenizer's configuration: it is no JSON object", file.string());
    const auto token = [&](const char* key, std::optional<int32_t> otherwise) {
      if (!config.contains(key) || config[key].is_null()) return otherwise;
      const Json& value = config[key];
      return special(value.is_object() ? value.at("content").get<std::string>() : value.get<std::string>());
    };
    bos_ = token("bos_token", bos_);
    eos_ = token("eos_token", eos_);
    if (config.contains("add_bos_token") && !config["add_bos_token"].is_null())
      adds_bos_ = config["add_bos_token"].get<bool>();
  } catch (const Json::exception& error) {
    fail(Fault::bad_data, "{} is not a tokenizer's configuration: {}", file.string(), error.what());
  }
}

std::optional<int32_t> Tokenizer::special(const std::string& spelling) const {
  const auto found = special_by_spelling_.find(spelling);
  if (found == special_by_spelling_.end()) return std::nullopt;
  return found->second;
}

const std::string& Tokenizer::raw_bytes(int32_t id) const {
  static const std::string nothing;
  return id < 0 || id >= vocab_size() ? nothing : bytes_[static_cast<size_t>(id)];
}

void Tokenizer::encode_plain(std::string_view text, size_t offset, const Output& out) const {
  for (std::string_view piece : pre_.split(text)) {
    bpe_.encode(piece, out.ids, out.begins, offset);
    offset += piece.size();
  }
}

void Tokenizer::encode_around(const Rounds& rounds, size_t round, std::string_view text, size_t offset,
                              const Output& out) const {
  if (round == rounds.size()) return encode_plain(text, offset, out);
  const auto allowed = [&](size_t begin, size_t end) {
    const auto range = std::ranges::upper_bound(out.written, begin, {}, &Range::end);  // the first that ends behind it
    return range != out.written.end() && range->begin <= begin && end <= range->end;
  };
  size_t plain = 0;
  for (size_t at = 0; at < text.size();) {
    const std::vector<Added>& candidates = rounds[round][static_cast<unsigned char>(text[at])];
    const auto found = std::find_if(candidates.begin(), candidates.end(), [&](const Added& a) {
      return text.substr(at).starts_with(a.spelling) &&
             (!a.special || !out.limited || allowed(offset + at, offset + at + a.spelling.size()));
    });
    if (found == candidates.end()) {
      ++at;
      continue;
    }
    encode_around(rounds, round + 1, text.substr(plain, at - plain), offset + plain, out);
    out.ids.push_back(found->id);
    if (out.begins) out.begins->push_back(offset + at);
    plain = at += found->spelling.size();
  }
  encode_around(rounds, round + 1, text.substr(plain), offset + plain, out);
}

std::vector<int32_t> Tokenizer::encode(std::string_view text, std::vector<size_t>* begins) const {
  check_utf8(text);
  std::vector<int32_t> ids;
  if (begins) begins->clear();
  encode_around(ordinary_, 0, text, 0, {ids, begins});
  return ids;
}

std::vector<int32_t> Tokenizer::encode_special(std::string_view text) const {
  check_utf8(text);
  std::vector<int32_t> ids;
  encode_around(all_, 0, text, 0, {ids, nullptr});
  return ids;
}

std::vector<int32_t> Tokenizer::encode_rendered(std::string_view text, std::span<const Range> written,
                                                std::vector<size_t>& begins) const {
  check_utf8(text);
  std::vector<int32_t> ids;
  begins.clear();
  encode_around(all_, 0, text, 0, {ids, &begins, written, true});
  return ids;
}

std::string Tokenizer::decode(std::span<const int32_t> ids, bool skip_special) const {
  std::string bytes;
  for (int32_t id : ids) {
    if (!skip_special || !is_special(id)) bytes += raw_bytes(id);
  }
  return repair_utf8(bytes);
}

std::string StreamDecoder::push(int32_t id) {
  if (!tokenizer_.is_special(id)) pending_ += tokenizer_.raw_bytes(id);
  const size_t certain = pending_.size() - unfinished_utf8(pending_);
  const std::string text = repair_utf8(std::string_view(pending_).substr(0, certain));
  pending_.erase(0, certain);
  return text;
}

std::string StreamDecoder::finish() {
  const std::string text = repair_utf8(pending_);
  pending_.clear();
  return text;
}

}  // namespace drover
