#include "trainer/export/gguf_vocabulary.h"

#include <cctype>
#include <map>
#include <set>
#include <utility>

#include "data/tokenizer.h"
#include "kernels/base/error.h"
#include "kernels/base/json.h"
#include "model/files/gguf_pre_tokenizer.h"

namespace drover {

namespace {

constexpr int32_t kNormal = 1, kControl = 3, kUserDefined = 4, kUnused = 5;  // tokenizer.ggml.token_type
constexpr size_t kLargestSettings = size_t{16} << 20;

[[noreturn]] void refuse(const fs::path& file, const std::string& what, const std::string& way) {
  fail(Fault::bad_data, "{}: {}; {}", file.string(), what, way);
}
constexpr const char* kDirectory = "export --merged DIR without --target keeps it, as a Hugging Face model";

Json settings_of(const fs::path& directory) {
  const fs::path file = directory / "tokenizer_config.json";
  if (!fs::exists(file)) return Json::object();
  return parse_json(read_text(file, kLargestSettings), file.string());
}

// The spelling of a token that tokenizer_config.json names by key, as a text or as an added token.
std::optional<std::string> named(const Json& settings, const char* key) {
  const Json value = settings.value(key, Json());
  if (value.is_string()) return value.get<std::string>();
  if (value.is_object() && value.contains("content")) return value["content"].get<std::string>();
  return std::nullopt;
}

class Vocabulary {
 public:
  Vocabulary(const ModelTexts& texts, const ModelConfig& config)
      : texts_(texts),
        config_(config),
        file_(texts.tokenizer / "tokenizer.json"),
        tokenizer_(Tokenizer::open(texts.tokenizer)),
        settings_(settings_of(texts.tokenizer)) {
    if (!fs::exists(file_)) {
      refuse(texts.tokenizer / "tokenizer.model", "llama.cpp needs the merges, which this file does not list",
             "take the model's tokenizer.json (model.tokenizer: DIR)");
    }
    json_ = parse_json(read_text(file_), file_.string());
  }

  void write(GgufWriter& writer) const {
    writer.text("tokenizer.ggml.model", "gpt2");
    writer.text("tokenizer.ggml.pre", pre().name);
    write_tokens(writer);
    writer.texts("tokenizer.ggml.merges", merges());
    write_ends(writer);
    if (texts_.chat_template) writer.text("tokenizer.chat_template", *texts_.chat_template);
    write_other_templates(writer);
  }

 private:
  const GgufPreTokenizer& pre() const {
    const Json pre_tokenizer = json_.value("pre_tokenizer", Json());
    const bool ignore_merges = json_["model"].value("ignore_merges", Json()) == true;
    const GgufPreTokenizer* found = gguf_pre_tokenizer(pre_tokenizer, ignore_merges);
    if (found != nullptr) return *found;
    if (!json_.value("normalizer", Json()).is_null() || pre_tokenizer.value("type", "") == "Metaspace") {
      refuse(file_, "BPE of characters with marks for spaces (Llama 2's kind) is not written as GGUF",
             "use export --merged DIR without --target, and llama.cpp's convert_hf_to_gguf.py on that directory with "
             "the base's tokenizer.model in it");
    }
    refuse(file_,
           fmt::format("llama.cpp has no name for this pre_tokenizer with ignore_merges {}; written are those of {}",
                       ignore_merges, gguf_pre_tokenizer_names()),
           kDirectory);
  }

  // llama.cpp finds a token wherever its spelling stands, and leaves the white space around it.
  void check_added(const Json& token) const {
    for (const char* flag : {"lstrip", "rstrip", "single_word"}) {
      if (token.value(flag, Json()) != true) continue;
      refuse(file_,
             fmt::format("the added token \"{}\" has {}, which GGUF cannot say",
                         clipped(token.at("content").get<std::string>()), flag),
             kDirectory);
    }
  }

  void write_tokens(GgufWriter& writer) const {
    std::map<int64_t, std::string> spellings;
    std::set<int64_t> added;
    for (const auto& [spelling, id] : json_["model"]["vocab"].items()) spellings[id.get<int64_t>()] = spelling;
    std::map<std::string, Json> overrides;  // by spelling, as data/tokenizer_json.cpp reads them
    const Json decoder = settings_.value("added_tokens_decoder", Json::object());
    for (const auto& [id, token] : decoder.items()) overrides[token.at("content").get<std::string>()] = token;
    for (const Json& token : json_.value("added_tokens", Json::array())) {
      const auto said = overrides.find(token.at("content").get<std::string>());
      check_added(said == overrides.end() ? token : said->second);
      spellings[token.at("id").get<int64_t>()] = token.at("content").get<std::string>();
      added.insert(token.at("id").get<int64_t>());
    }
    if (!spellings.empty() && spellings.rbegin()->first >= config_.vocab) {
      refuse(file_,
             fmt::format("the token \"{}\" has the id {}, and the model has {} rows",
                         clipped(spellings.rbegin()->second), spellings.rbegin()->first, config_.vocab),
             "take the tokenizer that belongs to the model (model.tokenizer: DIR)");
    }
    std::vector<std::string> tokens;
    std::vector<int32_t> types;
    std::set<std::string> known;
    for (int64_t id = 0; id < config_.vocab; ++id) {
      const auto found = spellings.find(id);
      tokens.push_back(found == spellings.end() ? fmt::format("[PAD{}]", id) : found->second);
      types.push_back(found == spellings.end()                          ? kUnused
                      : tokenizer_.is_special(static_cast<int32_t>(id)) ? kControl
                      : added.contains(id)                              ? kUserDefined
                                                                        : kNormal);
      if (!known.insert(tokens.back()).second)
        refuse(file_, fmt::format("the token \"{}\" stands twice", clipped(tokens.back())), kDirectory);
    }
    writer.texts("tokenizer.ggml.tokens", tokens);
    writer.integers("tokenizer.ggml.token_type", types);
  }

  std::vector<std::string> merges() const {
    std::vector<std::string> merges;
    for (const Json& merge : json_["model"].at("merges")) {
      merges.push_back(merge.is_string() ? merge.get<std::string>()
                                         : merge.at(0).get<std::string>() + ' ' + merge.at(1).get<std::string>());
    }
    return merges;
  }

  // BOS, EOS, the other tokens that end an answer, and whether texts get them.
  void write_ends(GgufWriter& writer) const {
    const std::optional<int32_t> bos = tokenizer_.bos()   ? tokenizer_.bos()
                                       : config_.bos >= 0 ? std::optional(config_.bos)
                                                          : std::nullopt;
    const auto& before = tokenizer_.before();
    const auto& after = tokenizer_.after();
    if (before.size() > 1 || (before.size() == 1 && before.front() != bos) || after.size() > 1) {
      refuse(file_,
             "the post_processor puts other tokens around a text than one BOS and one EOS, which GGUF cannot say",
             kDirectory);
    }
    if (bos) writer.integer("tokenizer.ggml.bos_token_id", *bos);
    write_stops(writer, after.empty() ? tokenizer_.eos() : std::optional(after.front()));
    for (const auto& [key, name] : {std::pair{"pad_token", "padding_token_id"}, {"unk_token", "unknown_token_id"}}) {
      const auto spelling = named(settings_, key);
      const auto id = spelling ? tokenizer_.special(*spelling) : std::nullopt;
      if (id) writer.integer(std::string("tokenizer.ggml.") + name, *id);
    }
    writer.flag("tokenizer.ggml.add_bos_token", !before.empty());
    writer.flag("tokenizer.ggml.add_eos_token", !after.empty());
  }

  void write_stops(GgufWriter& writer, std::optional<int32_t> eos) const {
    std::set<int32_t> stops(texts_.stops.begin(), texts_.stops.end());
    if (!eos && !stops.empty()) eos = *stops.begin();
    if (!eos) return;
    stops.erase(*eos);
    if (stops.size() > 2) {
      refuse(texts_.tokenizer,
             fmt::format("answers end at {} tokens ({}), and a GGUF file names at most three", texts_.stops.size(),
                         fmt::join(texts_.stops, ", ")),
             "take those out of eos_token_id in generation_config.json and config.json that never come, or use export "
             "--merged DIR without --target, which keeps all");
    }
    writer.integer("tokenizer.ggml.eos_token_id", *eos);
    const auto message_end = tokenizer_.special("<|eom_id|>");
    if (message_end && stops.erase(*message_end) > 0) writer.integer("tokenizer.ggml.eom_token_id", *message_end);
    const char* key = "tokenizer.ggml.eot_token_id";
    for (const int32_t stop : stops) writer.integer(std::exchange(key, "tokenizer.ggml.eom_token_id"), stop);
  }

  // What tokenizer_config.json has next to the default one, for calls of tools and the like.
  void write_other_templates(GgufWriter& writer) const {
    const Json templates = settings_.value("chat_template", Json());
    if (!templates.is_array()) return;
    std::vector<std::string> names;
    for (const Json& entry : templates) {
      std::string name = entry.at("name").get<std::string>();
      if (name == "default") continue;
      for (char& c : name) c = std::isalnum(static_cast<unsigned char>(c)) ? c : '_';
      writer.text("tokenizer.chat_template." + name, entry.at("template").get<std::string>());
      names.push_back(std::move(name));
    }
    if (!names.empty()) writer.texts("tokenizer.chat_templates", names);
  }

  const ModelTexts& texts_;
  const ModelConfig& config_;
  fs::path file_;
  Tokenizer tokenizer_;
  Json settings_, json_;
};

}  // namespace

void write_gguf_vocabulary(GgufWriter& writer, const ModelTexts& texts, const ModelConfig& config) {
  try {
    Vocabulary(texts, config).write(writer);
  } catch (const Json::exception& error) {
    fail(Fault::bad_data, "{} does not hold a tokenizer of Hugging Face's form: {}", texts.tokenizer.string(),
         error.what());
  }
}

}  // namespace drover
