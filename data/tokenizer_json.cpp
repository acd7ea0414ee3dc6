// Reads Hugging Face's tokenizer.json, as the tokenizers of 0.13 to 0.23 write it: BPE over bytes or over characters.
#include <set>

#include "data/tokenizer.h"
#include "data/tokenizer_parts.h"
#include "kernels/base/json.h"
#include "kernels/base/json_problem.h"

namespace drover {

namespace {

using json = Json;

constexpr int64_t kLargestVocabulary = int64_t{1} << 24;
constexpr size_t kMostUnusedIds = size_t{1} << 20;  // a table of all ids is kept

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

bool given(const json& object, const char* key) { return object.contains(key) && !object[key].is_null(); }
bool is_set(const json& object, const char* key) { return given(object, key) && object[key].get<bool>(); }

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
  // How long a text may be and what fills it up are a caller's business: transformers sets both anew at every call.
  check_fields(j,
               {"version", "truncation", "padding", "added_tokens", "normalizer", "pre_tokenizer", "post_processor",
                "decoder", "model"},
               "the tokenizer", file);
  if (given(j, "version") && j["version"] != "1.0") unsupported(file, "the version " + j["version"].dump());
  const json& model = j.at("model");
  if (given(model, "type") && model["type"] != "BPE") unsupported(file, "a model of type " + model["type"].dump());
  check_fields(model,
               {"type", "dropout", "unk_token", "continuing_subword_prefix", "end_of_word_suffix", "fuse_unk",
                "byte_fallback", "ignore_merges", "vocab", "merges"},
               "the model", file);
  for (const char* key : {"dropout", "continuing_subword_prefix", "end_of_word_suffix"}) {
    if (given(model, key) && model[key] != "" && model[key] != 0) unsupported(file, std::string("model.") + key);
  }
  if (!model.at("vocab").is_object()) unsupported(file, "a vocabulary that is not a map from tokens to ids");
}

}  // namespace

// A tokenizer.json on its way to a Definition: what its tokens are called, and which of them no text may give.
class Tokenizer::JsonReader {
 public:
  JsonReader(const fs::path& file, const Config& config) : file_(file), config_(config) {}
  Definition read(const json& j) {
    check_model(j, file_);
    const json& model = j["model"];
    const WordRules rules = word_rules(j, file_);
    byte_level_ = rules.byte_level.has_value();
    d_.texts = TokenTexts(decoder_rule(j, byte_level_, file_));
    for (const json& added : j.value("added_tokens", json::array())) add(added);
    obey_config(model["vocab"]);
    for (const auto& [spelling, id] : model["vocab"].items()) add_word(spelling, checked_id(id, spelling, file_));
    check_ids();
    set_texts();
    if (given(model, "unk_token")) read_unknown(model["unk_token"].get<std::string>());
    make_words(model, rules);
    d_.marks_every_part = std::ranges::find(rules.steps, MarkedWords::Step::Kind::prepend, &MarkedWords::Step::kind) !=
                              rules.steps.end() ||
                          (rules.metaspace && rules.metaspace->prepend == MarkedWords::Metaspace::Prepend::always);
    const DocumentFrame frame = document_frame(j.value("post_processor", json()), file_);
    d_.before = known(frame.before);
    d_.after = known(frame.after);
    if (!d_.bos && !d_.before.empty() && special_.count(d_.before.front())) d_.bos = d_.before.front();
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
    check_fields(a, {"id", "content", "single_word", "lstrip", "rstrip", "normalized", "special"}, "an added token",
                 file_);
    const std::string spelling = a.at("content").get<std::string>();
    AddedToken added{.spelling = spelling,
                     .id = checked_id(a.at("id"), spelling, file_),
                     .special = a.value("special", false),
                     .normalized = a.value("normalized", false),
                     .lstrip = a.value("lstrip", false),
                     .rstrip = a.value("rstrip", false),
                     .single_word = a.value("single_word", false)};
    if (spelling.empty())
      fail(Fault::bad_data, "{}: the added token with id {} has no spelling", file_.string(), added.id);
    name(added.id, spelling);
    if (!added_ids_.emplace(spelling, added.id).second)
      fail(Fault::bad_data, "{}: the added token \"{}\" stands twice", file_.string(), spelling);
    d_.added.push_back(std::move(added));
  }

  // What tokenizer_config.json says of added tokens holds, as in transformers.
  void obey_config(const json& vocabulary) {
    for (const AddedToken& said : config_.added) {
      const auto a = std::ranges::find(d_.added, said.spelling, &AddedToken::spelling);
      if (a == d_.added.end()) fail_unlisted(said.spelling);
      *a = {said.spelling, a->id, said.special, said.normalized, said.lstrip, said.rstrip, said.single_word};
    }
    for (const auto& [key, spelling] : config_.named) {
      const auto a = std::ranges::find(d_.added, spelling, &AddedToken::spelling);
      if (a != d_.added.end()) a->special = true;
    }
    d_.bos = named("bos_token", vocabulary);
    d_.eos = named("eos_token", vocabulary);
    for (const std::string& spelling : config_.specials) {
      const int32_t id = special_id(spelling, vocabulary);
      std::ranges::find(d_.added, id, &AddedToken::id)->special = true;
    }
    for (const AddedToken& a : d_.added) {
      if (a.special) special_.insert(a.id);
    }
  }

  // The id of a token that the configuration names; from then on it is a special one.
  std::optional<int32_t> named(const char* key, const json& vocabulary) {
    const auto name = config_.named.find(key);
    if (name == config_.named.end()) return std::nullopt;
    return special_id(name->second, vocabulary);
  }

  int32_t special_id(const std::string& spelling, const json& vocabulary) {
    const auto listed = added_ids_.find(spelling);
    if (listed != added_ids_.end()) return listed->second;
    if (!vocabulary.contains(spelling)) fail_unlisted(spelling);
    add({{"content", spelling}, {"id", vocabulary[spelling]}, {"special", true}});
    return added_ids_.at(spelling);
  }

  [[noreturn]] void fail_unlisted(const std::string& spelling) const {
    fail(Fault::bad_data,
         "{}: tokenizer_config.json names the token \"{}\", which tokenizer.json does not have; save both anew with "
         "transformers (AutoTokenizer.from_pretrained(DIR).save_pretrained(DIR)), or take it out",
         file_.string(), clipped(spelling));
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
    const auto bytes = byte_level_ ? bytes_of(spelling) : spelling;
    if (bytes) {
      tokens_.emplace_back(*bytes, id);
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

  void set_texts() {
    for (const auto& [id, spelling] : spellings_)
      d_.texts.set(id, byte_level_ ? bytes_of(spelling).value_or(spelling) : spelling);
  }

  void read_unknown(const std::string& spelling) {
    if (byte_level_) {
      if (!Bpe(tokens_, {}, false).knows_all_bytes())
        unsupported(file_, "model.unk_token with a vocabulary that lacks single bytes");
      return;
    }
    const auto found = ids_.find(spelling);
    if (found == ids_.end())
      fail(Fault::bad_data, "{}: model.unk_token \"{}\" is not in the vocabulary", file_.string(), spelling);
    d_.unknown = found->second;
  }

  void make_words(const json& model, const WordRules& rules) {
    std::vector<Merge> merges;
    for (const json& merge : model.at("merges")) {
      const auto [left, right] = sides_of(merge, file_);
      merges.push_back({merged_id(left), merged_id(right), merged_id(left + right)});
    }
    const bool whole_first = is_set(model, "ignore_merges"), byte_fallback = is_set(model, "byte_fallback");
    if (byte_level_) {
      Bpe bpe(tokens_, merges, whole_first);
      if (byte_fallback && !bpe.knows_all_bytes())
        unsupported(file_, "model.byte_fallback with a byte-level vocabulary that lacks single bytes");
      d_.words = std::make_unique<ByteLevelWords>(*rules.byte_level, std::move(bpe));
      return;
    }
    const CharacterBpe::Rules characters{whole_first, byte_fallback, is_set(model, "fuse_unk"), d_.unknown};
    d_.words = std::make_unique<MarkedWords>(rules.steps, rules.metaspace, CharacterBpe(tokens_, merges, characters));
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

  std::vector<int32_t> known(const std::vector<int64_t>& ids) const {
    for (int64_t id : ids) {
      if (id < 0 || id >= kLargestVocabulary || !spellings_.contains(static_cast<int32_t>(id)))
        fail(Fault::bad_data, "{}: the post_processor writes the id {}, which is no token", file_.string(), id);
    }
    return {ids.begin(), ids.end()};
  }

  const fs::path& file_;
  const Config& config_;
  bool byte_level_ = false;
  Definition d_;
  std::vector<std::pair<std::string, int32_t>> tokens_;       // of the model, but for special ones
  std::unordered_map<std::string, int32_t> added_ids_, ids_;  // of the added tokens, and of the vocabulary
  std::unordered_map<int32_t, std::string> spellings_;
  std::set<int32_t> special_;
};

Tokenizer::Definition Tokenizer::read_json(const fs::path& file, const std::string& text, const Config& config) {
  try {
    return JsonReader(file, config).read(parse_json(text, file.string()));
  } catch (const json::exception& error) {
    fail(Fault::bad_data, "{} is not a tokenizer of Hugging Face's form: {}", file.string(), json_problem(error));
  }
}

}  // namespace drover
