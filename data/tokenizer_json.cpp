// Reads Hugging Face's tokenizer.json, as far as it describes byte-level BPE with a pre-tokenizer that is known here.
#include <set>

#include "data/tokenizer.h"
#include "kernels/base/json.h"

namespace drover {

namespace {

using json = Json;

constexpr int64_t kLargestVocabulary = int64_t{1} << 24;
constexpr size_t kMostUnusedIds = size_t{1} << 20;  // a table of all ids is kept
constexpr const char* kLlama3Split =
    R"((?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+)";

// GPT-2's printable stand-ins: every byte is one character of a token's spelling.
const std::unordered_map<std::string, char>& byte_of_character() {
  static const std::unordered_map<std::string, char> table = [] {
    std::unordered_map<std::string, char> t;
    uint32_t next = 256;
    for (uint32_t byte = 0; byte < 256; ++byte) {
      const bool printable = (byte >= 33 && byte <= 126) || (byte >= 161 && byte <= 172) || byte >= 174;
      const uint32_t code = printable ? byte : next++;
      if (code < 0x80) {
        t[{static_cast<char>(code)}] = static_cast<char>(byte);
      } else {
        t[{static_cast<char>(0xC0 | code >> 6), static_cast<char>(0x80 | (code & 0x3F))}] = static_cast<char>(byte);
      }
    }
    return t;
  }();
  return table;
}

std::optional<std::string> bytes_of(const std::string& spelling) {
  std::string bytes;
  for (size_t i = 0; i < spelling.size();) {
    const size_t length = static_cast<unsigned char>(spelling[i]) < 0x80 ? 1 : 2;
    const auto found = byte_of_character().find(spelling.substr(i, length));
    if (found == byte_of_character().end()) return std::nullopt;
    bytes += found->second;
    i += length;
  }
  return bytes;
}

[[noreturn]] void unsupported(const fs::path& file, const std::string& what) {
  fail(Fault::bad_data,
       "{}: {} is not supported; Drover reads byte-level BPE with the pre-tokenizer of Llama 3, SmolLM2 or GPT-2",
       file.string(), what);
}

bool given(const json& object, const char* key) { return object.contains(key) && !object[key].is_null(); }

PreTokenizer::Kind kind_of(const json& pre, const fs::path& file) {
  if (!pre.is_object()) unsupported(file, "a missing pre_tokenizer");
  const json steps = pre.value("type", "") == "Sequence" ? pre.at("pretokenizers") : json::array({pre});
  std::string shape;
  for (const json& step : steps) {
    const std::string type = step.at("type").get<std::string>();
    if (type == "ByteLevel") {
      if (step.value("add_prefix_space", true)) unsupported(file, "the pre_tokenizer ByteLevel with add_prefix_space");
      shape += step.value("use_regex", true) ? "ByteLevel with regex, " : "ByteLevel, ";
    } else if (type == "Digits") {
      shape += step.value("individual_digits", false) ? "individual Digits, " : "Digits, ";
    } else if (type == "Split") {
      const json& pattern = step.at("pattern");
      if (pattern.value("Regex", "") != kLlama3Split || step.value("behavior", "") != "Isolated" ||
          step.value("invert", false)) {
        unsupported(file, "the pre_tokenizer Split by " + pattern.dump());
      }
      shape += "Split, ";
    } else {
      unsupported(file, "the pre_tokenizer " + type);
    }
  }
  if (shape == "Split, ByteLevel, ") return PreTokenizer::Kind::llama3;
  if (shape == "individual Digits, ByteLevel with regex, ") return PreTokenizer::Kind::digits_gpt2;
  if (shape == "ByteLevel with regex, ") return PreTokenizer::Kind::gpt2;
  unsupported(file, "a pre_tokenizer made of " + shape.substr(0, shape.size() - std::min<size_t>(shape.size(), 2)));
}

// The special token that a post_processor puts before a single text.
std::optional<std::string> leading_token(const json& processor) {
  if (!processor.is_object()) return std::nullopt;
  const std::string type = processor.value("type", "");
  if (type == "Sequence") {
    for (const json& step : processor.at("processors")) {
      if (const auto token = leading_token(step)) return token;
    }
  } else if (type == "TemplateProcessing" && !processor.at("single").empty() &&
             processor["single"].at(0).contains("SpecialToken")) {
    return processor["single"].at(0)["SpecialToken"].at("id").get<std::string>();
  }
  return std::nullopt;
}

// The two tokens of a merge: "a b" in older files, ["a", "b"] in newer ones.
std::pair<std::string, std::string> sides_of(const json& merge, const fs::path& file) {
  if (merge.is_array() && merge.size() == 2) return {merge[0].get<std::string>(), merge[1].get<std::string>()};
  const std::string both = merge.get<std::string>();
  const size_t space = both.find(' ');
  if (space == std::string::npos || both.find(' ', space + 1) != std::string::npos) {
    fail(Fault::bad_data, "{}: the merge \"{}\" does not name two tokens", file.string(), both);
  }
  return {both.substr(0, space), both.substr(space + 1)};
}

int32_t checked_id(const json& value, const std::string& spelling, const fs::path& file) {
  const bool whole = value.is_number_integer() &&
                     (!value.is_number_unsigned() || value.get<uint64_t>() < uint64_t{kLargestVocabulary});
  if (!whole || value.get<int64_t>() < 0 || value.get<int64_t>() >= kLargestVocabulary) {
    fail(Fault::bad_data, "{}: the token \"{}\" has the id {}; ids are whole numbers from 0 to {}", file.string(),
         spelling, value.dump(), kLargestVocabulary - 1);
  }
  return value.get<int32_t>();
}

void check_model(const json& j, const fs::path& file) {
  const json& model = j.at("model");
  if (given(model, "type") && model["type"] != "BPE") unsupported(file, "a model of type " + model["type"].dump());
  if (given(model, "byte_fallback") && model["byte_fallback"] != false) unsupported(file, "model.byte_fallback");
  for (const char* key : {"dropout", "continuing_subword_prefix", "end_of_word_suffix"}) {
    if (given(model, key) && model[key] != "" && model[key] != 0) unsupported(file, std::string("model.") + key);
  }
  if (given(j, "normalizer")) unsupported(file, "a normalizer");
  if (!model.at("vocab").is_object()) unsupported(file, "a vocabulary that is not a map from tokens to ids");
}

}  // namespace

// A tokenizer.json on its way to a Definition: what its tokens are called, and which of them no text may give.
class Tokenizer::JsonReader {
 public:
  explicit JsonReader(const fs::path& file) : file_(file) {}
  Definition read(const json& j) {
    check_model(j, file_);
    const json& model = j["model"];
    d_.kind = kind_of(j.value("pre_tokenizer", json()), file_);
    d_.whole_first = given(model, "ignore_merges") && model["ignore_merges"].get<bool>();
    for (const json& added : j.value("added_tokens", json::array())) add(added);
    for (const auto& [spelling, id] : model["vocab"].items()) add_word(spelling, checked_id(id, spelling, file_));
    check_ids();
    for (const json& merge : model.at("merges")) {
      const auto [left, right] = sides_of(merge, file_);
      d_.merges.push_back({merged_id(left), merged_id(right), merged_id(left + right)});
    }
    if (const auto token = leading_token(j.value("post_processor", json()))) {
      d_.adds_bos = true;
      const auto found = added_ids_.find(*token);
      if (found != added_ids_.end() && special_.count(found->second)) d_.bos = found->second;
    }
    if (given(model, "unk_token") && !Bpe(d_.tokens, {}, false).knows_all_bytes())
      unsupported(file_, "model.unk_token with a vocabulary that lacks single bytes");
    return std::move(d_);
  }

 private:
  void name(int32_t id, const std::string& spelling) {
    const auto [place, fresh] = spellings_.emplace(id, spelling);
    if (!fresh && place->second != spelling) {
      fail(Fault::bad_data, "{}: the tokens \"{}\" and \"{}\" both have the id {}; ids are unique", file_.string(),
           place->second, spelling, id);
    }
  }

  void add(const json& a) {
    const std::string spelling = a.at("content").get<std::string>();
    Added added{spelling, checked_id(a.at("id"), spelling, file_), a.value("special", false),
                a.value("normalized", false)};
    if (spelling.empty())
      fail(Fault::bad_data, "{}: the added token with id {} has no spelling", file_.string(), added.id);
    for (const char* key : {"single_word", "lstrip", "rstrip"}) {
      if (a.value(key, false)) unsupported(file_, std::string(key) + " of the added token " + spelling);
    }
    name(added.id, spelling);
    if (!added_ids_.emplace(spelling, added.id).second)
      fail(Fault::bad_data, "{}: the added token \"{}\" stands twice", file_.string(), spelling);
    if (added.special) special_.insert(added.id);
    d_.added.push_back(std::move(added));
  }

  void add_word(const std::string& spelling, int32_t id) {
    const auto added = added_ids_.find(spelling);
    if (added != added_ids_.end() && added->second != id) {
      fail(Fault::bad_data, "{}: \"{}\" has the id {} in the vocabulary and {} among the added tokens", file_.string(),
           spelling, id, added->second);
    }
    name(id, spelling);
    ids_.emplace(spelling, id);
    if (special_.count(id)) return;  // so that no text gives it
    if (const auto bytes = bytes_of(spelling)) {
      d_.tokens.emplace_back(*bytes, id);
    } else if (added == added_ids_.end()) {
      unsupported(file_, "the token \"" + spelling + "\", which is not spelled in byte-level characters,");
    }
  }

  void check_ids() const {
    for (const auto& [id, spelling] : spellings_) {
      if (static_cast<size_t>(id) < spellings_.size() + kMostUnusedIds) continue;
      fail(Fault::bad_data,
           "{}: the token \"{}\" has the id {} where there are {} tokens; at most {} ids may be unused", file_.string(),
           spelling, id, spellings_.size(), kMostUnusedIds);
    }
  }

  int32_t merged_id(const std::string& spelling) const {
    const auto found = ids_.find(spelling);
    if (found == ids_.end())
      fail(Fault::bad_data, "{}: a merge names or makes \"{}\", which is not in the vocabulary", file_.string(),
           spelling);
    if (special_.count(found->second))
      fail(Fault::bad_data, "{}: a merge names or makes the special token \"{}\"; text must not give it",
           file_.string(), spelling);
    return found->second;
  }

  const fs::path& file_;
  Definition d_;
  std::unordered_map<std::string, int32_t> added_ids_, ids_;  // of the added tokens, and of the vocabulary
  std::unordered_map<int32_t, std::string> spellings_;
  std::set<int32_t> special_;
};

Tokenizer::Definition Tokenizer::read_json(const fs::path& file, const std::string& text) {
  try {
    return JsonReader(file).read(parse_json(text, file.string()));
  } catch (const json::exception& error) {
    fail(Fault::bad_data, "{} is not a tokenizer of Hugging Face's form: {}", file.string(), error.what());
  }
}

}  // namespace drover
