#include "data/tokenizer.h"

#include <openssl/evp.h>

#include <algorithm>
#include <array>
#include <nlohmann/json.hpp>

#include "kernels/base/error.h"
#include "kernels/base/hash.h"

namespace drover {

namespace {

using nlohmann::json;

// GPT-2's printable stand-ins: every byte is one character of the vocabulary's spelling.
const std::map<std::string, char>& byte_of_character() {
  static const std::map<std::string, char> table = [] {
    std::map<std::string, char> t;
    uint32_t next = 256;
    for (uint32_t byte = 0; byte < 256; ++byte) {
      const bool printable = (byte >= 33 && byte <= 126) || (byte >= 161 && byte <= 172) || (byte >= 174 && byte <= 255);
      const uint32_t code = printable ? byte : next++;
      std::string utf8;
      if (code < 0x80) {
        utf8 = {static_cast<char>(code)};
      } else {
        utf8 = {static_cast<char>(0xC0 | code >> 6), static_cast<char>(0x80 | (code & 0x3F))};
      }
      t[utf8] = static_cast<char>(byte);
    }
    return t;
  }();
  return table;
}

std::string bytes_of(const std::string& spelling, const fs::path& file) {
  std::string bytes;
  for (size_t i = 0; i < spelling.size();) {
    const size_t length = static_cast<unsigned char>(spelling[i]) < 0x80 ? 1 : 2;
    const auto found = byte_of_character().find(spelling.substr(i, length));
    if (found == byte_of_character().end()) {
      fail(Exit::bad_data, "{}: the token \"{}\" is not spelled in byte-level characters; only byte-level BPE is supported", file.string(), spelling);
    }
    bytes += found->second;
    i += length;
  }
  return bytes;
}

[[noreturn]] void unsupported(const fs::path& file, const std::string& what) {
  fail(Exit::bad_data, "{}: {} is not supported; Drover reads byte-level BPE with Llama 3's or SmolLM2's pre-tokenizer", file.string(), what);
}

PreTokenizer::Kind kind_of(const json& pre, const fs::path& file) {
  std::vector<json> steps;
  if (pre.is_object() && pre.value("type", "") == "Sequence") {
    for (const json& step : pre.at("pretokenizers")) steps.push_back(step);
  } else {
    steps.push_back(pre);
  }
  std::string shape;
  for (const json& step : steps) {
    if (!step.is_object()) unsupported(file, "a missing pre_tokenizer");
    const std::string type = step.value("type", "");
    shape += type;
    if (type == "ByteLevel") {
      if (step.value("add_prefix_space", true)) unsupported(file, "ByteLevel with add_prefix_space");
      shape += step.value("use_regex", true) ? "+regex " : " ";
    } else if (type == "Digits") {
      shape += step.value("individual_digits", false) ? "+individual " : " ";
    } else if (type == "Split") {
      const std::string regex = step.at("pattern").value("Regex", "");
      const bool llama = regex == R"((?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+)";
      if (!llama || step.value("behavior", "") != "Isolated" || step.value("invert", false)) unsupported(file, "the pre_tokenizer's Split with pattern " + regex);
      shape += "+llama3 ";
    } else {
      unsupported(file, "the pre_tokenizer " + (type.empty() ? step.dump() : type));
    }
  }
  if (shape == "Split+llama3 ByteLevel ") return PreTokenizer::Kind::llama3;
  if (shape == "Digits+individual ByteLevel+regex ") return PreTokenizer::Kind::digits_gpt2;
  if (shape == "ByteLevel+regex ") return PreTokenizer::Kind::gpt2;
  unsupported(file, "the sequence of pre_tokenizers " + shape);
}

// Bytes that are not UTF-8 become U+FFFD, one for each.
std::string repaired(std::string_view bytes) {
  std::string text;
  while (!bytes.empty()) {
    const size_t good = first_invalid_utf8(bytes);
    text += bytes.substr(0, good);
    if (good == bytes.size()) break;
    text += "\xEF\xBF\xBD";
    bytes.remove_prefix(good + 1);
  }
  return text;
}

// Whether a post_processor puts a special token before a single text.
bool starts_with_special(const json& processor) {
  if (!processor.is_object()) return false;
  if (processor.value("type", "") == "Sequence") {
    for (const json& step : processor.at("processors")) {
      if (starts_with_special(step)) return true;
    }
    return false;
  }
  if (processor.value("type", "") != "TemplateProcessing") return false;
  const json& single = processor.at("single");
  return !single.empty() && single.front().contains("SpecialToken");
}

}  // namespace

Tokenizer Tokenizer::open(const fs::path& directory) {
  if (!fs::is_directory(directory)) fail(Exit::missing_input, "{} is not a directory; a tokenizer's directory holds tokenizer.json or tokenizer.model", directory.string());
  const fs::path with_json = directory / "tokenizer.json", with_ranks = directory / "tokenizer.model";
  if (!fs::exists(with_json) && !fs::exists(with_ranks)) {
    fail(Exit::missing_input, "{} holds neither tokenizer.json nor tokenizer.model; copy the model's tokenizer there or set model.tokenizer", directory.string());
  }
  Tokenizer t = fs::exists(with_json) ? from_json(with_json) : from_ranks(with_ranks);
  t.read_tokenizer_config(directory);
  return t;
}

Tokenizer Tokenizer::from_json(const fs::path& file) {
  const std::string text = read_text(file, size_t{256} << 20);
  try {
    const json j = json::parse(text);
    const json& model = j.at("model");
    if (model.value("type", "BPE") != "BPE") unsupported(file, "a model of type " + model.value("type", ""));
    if (model.value("byte_fallback", false)) unsupported(file, "byte_fallback");
    for (const char* key : {"dropout", "continuing_subword_prefix", "end_of_word_suffix"}) {
      if (model.contains(key) && !model[key].is_null() && model[key] != "") unsupported(file, std::string("model.") + key);
    }
    if (j.contains("normalizer") && !j["normalizer"].is_null()) unsupported(file, "a normalizer");

    std::vector<Added> added;
    for (const json& a : j.value("added_tokens", json::array())) {
      added.push_back({a.at("content").get<std::string>(), a.at("id").get<int32_t>(), a.value("special", false)});
    }
    const json& vocab = model.at("vocab");
    int64_t size = static_cast<int64_t>(vocab.size());
    for (const Added& a : added) size = std::max<int64_t>(size, int64_t{a.id} + 1);
    if (size > (int64_t{1} << 24)) unsupported(file, "a vocabulary of more than 2^24 tokens");
    std::vector<std::string> by_id(static_cast<size_t>(size));
    std::vector<bool> taken(static_cast<size_t>(size)), is_added(static_cast<size_t>(size));
    for (const Added& a : added) {
      if (a.id < 0) fail(Exit::bad_data, "{}: the added token \"{}\" has the negative id {}", file.string(), a.spelling, a.id);
      is_added[static_cast<size_t>(a.id)] = true;
    }
    std::vector<std::pair<std::string, int32_t>> tokens;
    std::unordered_map<std::string, int32_t> ids;
    for (const auto& [spelling, value] : vocab.items()) {
      const int64_t id = value.get<int64_t>();
      if (id < 0 || id >= size || taken[static_cast<size_t>(id)]) {
        fail(Exit::bad_data, "{}: the token \"{}\" has the id {}, which is out of range or taken", file.string(), spelling, id);
      }
      taken[static_cast<size_t>(id)] = true;
      ids.emplace(spelling, static_cast<int32_t>(id));
      if (is_added[static_cast<size_t>(id)]) continue;  // spelled as text, and never the result of a merge
      by_id[static_cast<size_t>(id)] = bytes_of(spelling, file);
      tokens.emplace_back(by_id[static_cast<size_t>(id)], static_cast<int32_t>(id));
    }
    std::vector<Bpe::Merge> merges;
    const auto id_of = [&](const std::string& spelling) {
      const auto found = ids.find(spelling);
      if (found == ids.end()) fail(Exit::bad_data, "{}: a merge names \"{}\", which is not in the vocabulary", file.string(), spelling);
      return found->second;
    };
    for (const json& m : model.at("merges")) {
      std::string left, right;
      if (m.is_array() && m.size() == 2) {
        left = m[0].get<std::string>();
        right = m[1].get<std::string>();
      } else {
        const std::string both = m.get<std::string>();
        const size_t space = both.find(' ');
        if (space == std::string::npos) fail(Exit::bad_data, "{}: the merge \"{}\" does not name two tokens", file.string(), both);
        left = both.substr(0, space);
        right = both.substr(space + 1);
      }
      merges.push_back({id_of(left), id_of(right), id_of(left + right)});
    }

    Tokenizer t(Bpe(tokens, merges, model.value("ignore_merges", false)), PreTokenizer(kind_of(j.at("pre_tokenizer"), file)));
    t.bytes_ = std::move(by_id);
    t.added_ = std::move(added);
    t.adds_bos_ = j.contains("post_processor") && starts_with_special(j["post_processor"]);
    t.fingerprint_ = sha256_hex(text);
    for (const Added& a : t.added_) {
      t.bytes_[static_cast<size_t>(a.id)] = a.spelling;
      if (a.special) t.special_ids_[a.id] = a.spelling;
    }
    std::stable_sort(t.added_.begin(), t.added_.end(), [](const Added& a, const Added& b) { return a.spelling.size() > b.spelling.size(); });
    return t;
  } catch (const json::exception& error) {
    fail(Exit::bad_data, "{} is not a tokenizer of Hugging Face's form: {}", file.string(), error.what());
  }
}

Tokenizer Tokenizer::from_ranks(const fs::path& file) {
  const std::string text = read_text(file, size_t{64} << 20);
  std::vector<std::pair<std::string, int32_t>> tokens;
  size_t line_number = 0;
  for (size_t at = 0; at < text.size();) {
    const size_t end = std::min(text.find('\n', at), text.size());
    const std::string line = text.substr(at, end - at);
    at = end + 1;
    ++line_number;
    if (line.empty()) continue;
    const size_t space = line.find(' ');
    std::string bytes(line.size(), '\0');
    const int decoded = space == std::string::npos || space % 4 != 0 ? -1 : EVP_DecodeBlock(reinterpret_cast<unsigned char*>(bytes.data()), reinterpret_cast<const unsigned char*>(line.data()), static_cast<int>(space));
    int64_t rank = -1;
    if (decoded > 0) rank = std::strtoll(line.c_str() + space, nullptr, 10);
    if (rank != static_cast<int64_t>(tokens.size())) {
      fail(Exit::bad_data, "{}:{}: expected \"BASE64 {}\", a token and its rank (the tokenizer.model of Llama 3)", file.string(), line_number, tokens.size());
    }
    size_t padding = 0;
    while (padding < 2 && space > padding && line[space - 1 - padding] == '=') ++padding;
    bytes.resize(static_cast<size_t>(decoded) - padding);
    tokens.emplace_back(bytes, static_cast<int32_t>(rank));
  }
  if (tokens.size() != 128000) unsupported(file, fmt::format("a tokenizer.model with {} ranks (Llama 3's has 128000)", tokens.size()));

  Tokenizer t(Bpe(tokens, Bpe::implied_merges(tokens), true), PreTokenizer(PreTokenizer::Kind::llama3));
  for (const auto& [bytes, id] : tokens) t.bytes_.push_back(bytes);
  std::vector<std::string> names = {"<|begin_of_text|>", "<|end_of_text|>", "<|reserved_special_token_0|>", "<|reserved_special_token_1|>", "<|finetune_right_pad_id|>",
                                    "<|reserved_special_token_2|>", "<|start_header_id|>", "<|end_header_id|>", "<|eom_id|>", "<|eot_id|>", "<|python_tag|>"};
  for (int i = 3; names.size() < 256; ++i) names.push_back(fmt::format("<|reserved_special_token_{}|>", i));
  for (const std::string& name : names) {
    const int32_t id = static_cast<int32_t>(t.bytes_.size());
    t.bytes_.push_back(name);
    t.added_.push_back({name, id, true});
    t.special_ids_[id] = name;
  }
  std::stable_sort(t.added_.begin(), t.added_.end(), [](const Added& a, const Added& b) { return a.spelling.size() > b.spelling.size(); });
  t.adds_bos_ = true;
  t.bos_ = t.special("<|begin_of_text|>");
  t.fingerprint_ = sha256_hex(text);
  return t;
}

void Tokenizer::read_tokenizer_config(const fs::path& directory) {
  const fs::path file = directory / "tokenizer_config.json";
  if (!fs::exists(file)) return;
  try {
    const json j = json::parse(read_text(file, size_t{64} << 20));
    if (j.contains("bos_token") && !j["bos_token"].is_null()) {
      const json& bos = j["bos_token"];
      bos_ = special(bos.is_object() ? bos.at("content").get<std::string>() : bos.get<std::string>());
    }
  } catch (const json::exception& error) {
    fail(Exit::bad_data, "{} is not valid: {}", file.string(), error.what());
  }
}

std::optional<int32_t> Tokenizer::special(const std::string& spelling) const {
  for (const auto& [id, text] : special_ids_) {
    if (text == spelling) return id;
  }
  return std::nullopt;
}

void Tokenizer::encode_plain(std::string_view text, std::vector<int32_t>& ids) const {
  for (std::string_view piece : pre_.split(text)) bpe_.encode(piece, ids);
}

void Tokenizer::encode_added(std::string_view text, bool specials, std::vector<int32_t>& ids) const {
  size_t plain = 0;
  for (size_t at = 0; at < text.size();) {
    const auto found = std::find_if(added_.begin(), added_.end(), [&](const Added& a) {
      return (specials || !a.special) && !a.spelling.empty() && text.substr(at, a.spelling.size()) == a.spelling;
    });
    if (found == added_.end()) {
      ++at;
      continue;
    }
    encode_plain(text.substr(plain, at - plain), ids);
    ids.push_back(found->id);
    at += found->spelling.size();
    plain = at;
  }
  encode_plain(text.substr(plain), ids);
}

std::vector<int32_t> Tokenizer::encode(std::string_view text) const {
  std::vector<int32_t> ids;
  const bool ordinary = std::any_of(added_.begin(), added_.end(), [](const Added& a) { return !a.special; });
  if (ordinary) {
    encode_added(text, false, ids);
  } else {
    encode_plain(text, ids);
  }
  return ids;
}

std::vector<int32_t> Tokenizer::encode_special(std::string_view text) const {
  std::vector<int32_t> ids;
  encode_added(text, true, ids);
  return ids;
}

std::string Tokenizer::decode(std::span<const int32_t> ids, bool skip_special) const {
  std::string bytes;
  for (int32_t id : ids) {
    if (id < 0 || id >= vocab_size() || (skip_special && is_special(id))) continue;
    bytes += bytes_[static_cast<size_t>(id)];
  }
  return repaired(bytes);
}

std::string StreamDecoder::push(int32_t id) {
  if (tokenizer_.is_special(id)) return {};
  pending_ += tokenizer_.raw_bytes(id);
  const size_t good = first_invalid_utf8(pending_);
  // At most three bytes of an unfinished character wait; anything longer is broken and shown as it decodes.
  if (pending_.size() - good >= 4) return finish();
  std::string text = pending_.substr(0, good);
  pending_.erase(0, good);
  return text;
}

std::string StreamDecoder::finish() {
  const std::string text = repaired(pending_);
  pending_.clear();
  return text;
}

}  // namespace drover
