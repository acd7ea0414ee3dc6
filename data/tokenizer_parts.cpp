#include "data/tokenizer_parts.h"

#include <algorithm>
#include <utility>

#include "kernels/base/error.h"

namespace drover {

namespace {

constexpr const char* kLlama3Split =
    R"((?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+)";

std::string type_of(const Json& part) { return part.at("type").get<std::string>(); }

// The parts of a Sequence, one after the other, or the part itself; nothing for null.
std::vector<Json> parts_of(const Json& part, const char* list, const std::string& what, const fs::path& file) {
  if (part.is_null()) return {};
  if (type_of(part) != "Sequence") return {part};
  check_fields(part, {"type", list}, what + " Sequence", file);
  std::vector<Json> parts;
  for (const Json& step : part.at(list)) {
    for (const Json& inner : parts_of(step, list, what, file)) parts.push_back(inner);
  }
  return parts;
}

// What a Replace looks for, which must be a text.
std::string pattern_of(const Json& step, const std::string& what, const fs::path& file) {
  check_fields(step, {"type", "pattern", "content"}, what, file);
  const Json& pattern = step.at("pattern");
  if (!pattern.contains("String") || pattern.size() != 1 || pattern["String"] == "")
    unsupported(file, what + " of " + pattern.dump());
  return pattern["String"].get<std::string>();
}

PreTokenizer::Kind byte_level_kind(const std::vector<Json>& steps, const fs::path& file) {
  std::string shape;
  for (const Json& step : steps) {
    const std::string type = type_of(step), what = "the pre_tokenizer " + type;
    if (type == "ByteLevel") {
      check_fields(step, {"type", "add_prefix_space", "trim_offsets", "use_regex"}, what, file);
      if (step.value("add_prefix_space", true)) unsupported(file, what + " with add_prefix_space");
      shape += step.value("use_regex", true) ? "ByteLevel with regex, " : "ByteLevel, ";
    } else if (type == "Digits") {
      check_fields(step, {"type", "individual_digits"}, what, file);
      shape += step.value("individual_digits", false) ? "individual Digits, " : "Digits, ";
    } else if (type == "Split") {
      check_fields(step, {"type", "pattern", "behavior", "invert"}, what, file);
      const Json& pattern = step.at("pattern");
      if (pattern.value("Regex", "") != kLlama3Split || step.value("behavior", "") != "Isolated" ||
          step.value("invert", false)) {
        unsupported(file, what + " by " + pattern.dump());
      }
      shape += "Split, ";
    } else {
      unsupported(file, what);
    }
  }
  if (shape == "Split, ByteLevel, ") return PreTokenizer::Kind::llama3;
  if (shape == "individual Digits, ByteLevel with regex, ") return PreTokenizer::Kind::digits_gpt2;
  if (shape == "ByteLevel with regex, ") return PreTokenizer::Kind::gpt2;
  unsupported(file, "a pre_tokenizer made of " + shape.substr(0, shape.size() - 2));
}

bool is_one_character(const std::string& text) {
  return !text.empty() && std::ranges::count_if(text, [](char c) { return (c & 0xC0) != 0x80; }) == 1;
}

MarkedWords::Metaspace::Prepend prepend_of(const Json& step, const std::string& what, const fs::path& file) {
  using Prepend = MarkedWords::Metaspace::Prepend;
  const std::string scheme = step.value("prepend_scheme", "always");
  if (step.contains("add_prefix_space") && step["add_prefix_space"] == false && scheme != "never")
    unsupported(file, what + " without add_prefix_space and with the prepend_scheme " + scheme);
  if (scheme == "always") return Prepend::always;
  if (scheme == "first") return Prepend::first;
  if (scheme == "never") return Prepend::never;
  unsupported(file, what + " with the prepend_scheme " + scheme);
}

MarkedWords::Metaspace metaspace_of(const Json& step, const fs::path& file) {
  const std::string what = "the pre_tokenizer Metaspace";
  check_fields(step, {"type", "replacement", "str_rep", "add_prefix_space", "prepend_scheme", "split"}, what, file);
  MarkedWords::Metaspace m;
  m.mark = step.at("replacement").get<std::string>();
  if (!is_one_character(m.mark)) unsupported(file, what + " with the replacement \"" + m.mark + "\"");
  m.prepend = prepend_of(step, what, file);
  m.split = step.contains("split") && !step["split"].is_null() ? step["split"].get<bool>() : true;
  return m;
}

std::vector<MarkedWords::Step> steps_of(const Json& normalizer, const fs::path& file) {
  std::vector<MarkedWords::Step> steps;
  for (const Json& step : parts_of(normalizer, "normalizers", "the normalizer", file)) {
    const std::string type = type_of(step), what = "the normalizer " + type;
    if (type == "Prepend") {
      check_fields(step, {"type", "prepend"}, what, file);
      steps.push_back({MarkedWords::Step::Kind::prepend, "", step.at("prepend").get<std::string>()});
    } else if (type == "Replace") {
      steps.push_back(
          {MarkedWords::Step::Kind::replace, pattern_of(step, what, file), step.at("content").get<std::string>()});
    } else {
      unsupported(file, what);
    }
  }
  return steps;
}

DecoderRule metaspace_decoder(const Json& step, const fs::path& file) {
  const std::string what = "the decoder Metaspace";
  check_fields(step, {"type", "replacement", "str_rep", "add_prefix_space", "prepend_scheme", "split"}, what, file);
  DecoderRule rule{.kind = DecoderRule::Kind::metaspace, .mark = step.at("replacement").get<std::string>()};
  if (!is_one_character(rule.mark)) unsupported(file, what + " with the replacement \"" + rule.mark + "\"");
  rule.first_marks = prepend_of(step, what, file) == MarkedWords::Metaspace::Prepend::never;
  return rule;
}

// Replace, ByteFallback, Fuse, and Strip where there is one.
DecoderRule marked_decoder(const std::vector<Json>& steps, const fs::path& file) {
  DecoderRule rule{.kind = DecoderRule::Kind::marked};
  std::string shape;
  for (const Json& step : steps) {
    const std::string type = type_of(step), what = "the decoder " + type;
    shape += (shape.empty() ? "" : ", ") + type;
    if (type == "Replace") {
      rule.mark = pattern_of(step, what, file);
      rule.space = step.at("content").get<std::string>();
    } else if (type == "ByteFallback" || type == "Fuse") {
      check_fields(step, {"type"}, what, file);
    } else if (type == "Strip") {
      check_fields(step, {"type", "content", "start", "stop"}, what, file);
      if (step.at("content") != " " || step.at("stop") != 0) unsupported(file, what + " of other than leading spaces");
      rule.strip = step.at("start").get<uint32_t>();
    } else {
      unsupported(file, what);
    }
  }
  if (shape != "Replace, ByteFallback, Fuse" && shape != "Replace, ByteFallback, Fuse, Strip")
    unsupported(file, "a decoder made of " + shape);
  return rule;
}

void add_special(const Json& piece, const Json& tokens, std::vector<int64_t>& ids, const fs::path& file) {
  const std::string name = piece.at("id").get<std::string>();
  if (!tokens.contains(name)) {
    fail(Fault::bad_data, "{}: the post_processor writes \"{}\", which is not among its special_tokens", file.string(),
         name);
  }
  for (const Json& id : tokens[name].at("ids")) ids.push_back(id.get<int64_t>());
}

DocumentFrame template_frame(const Json& step, const fs::path& file) {
  const std::string what = "the post_processor TemplateProcessing";
  check_fields(step, {"type", "single", "pair", "special_tokens"}, what, file);
  DocumentFrame frame;
  int texts = 0;
  for (const Json& piece : step.at("single")) {
    if (piece.contains("SpecialToken")) {
      add_special(piece["SpecialToken"], step.value("special_tokens", Json::object()),
                  texts == 0 ? frame.before : frame.after, file);
    } else if (piece.contains("Sequence") && piece["Sequence"].at("id") == "A") {
      ++texts;
    } else {
      unsupported(file, what + " with " + piece.dump() + " for a single text");
    }
  }
  if (texts != 1) unsupported(file, fmt::format("{} that writes a single text {} times", what, texts));
  return frame;
}

}  // namespace

void unsupported(const fs::path& file, const std::string& what) {
  fail(Fault::bad_data,
       "{}: {} is not supported; Drover reads byte-level BPE with the pre-tokenizer of Llama 3, SmolLM2 or GPT-2, and "
       "BPE of characters with marks for spaces, as Llama 2, TinyLlama and Mistral have it",
       file.string(), what);
}

void check_fields(const Json& object, std::initializer_list<std::string_view> known, const std::string& what,
                  const fs::path& file) {
  for (const auto& [field, value] : object.items()) {
    if (!value.is_null() && std::ranges::find(known, field) == known.end())
      unsupported(file, fmt::format("the field {} of {}", field, what));
  }
}

WordRules word_rules(const Json& tokenizer, const fs::path& file) {
  const std::vector<Json> steps =
      parts_of(tokenizer.value("pre_tokenizer", Json()), "pretokenizers", "the pre_tokenizer", file);
  WordRules rules;
  rules.steps = steps_of(tokenizer.value("normalizer", Json()), file);
  if (steps.size() == 1 && type_of(steps[0]) == "Metaspace") {
    rules.metaspace = metaspace_of(steps[0], file);
  } else if (!steps.empty()) {
    rules.byte_level = byte_level_kind(steps, file);
    if (!rules.steps.empty()) unsupported(file, "a normalizer with the pre_tokenizer ByteLevel");
  } else if (rules.steps.empty()) {
    unsupported(file, "a missing pre_tokenizer without a normalizer");
  }
  return rules;
}

DecoderRule decoder_rule(const Json& tokenizer, bool byte_level, const fs::path& file) {
  const std::vector<Json> steps = parts_of(tokenizer.value("decoder", Json()), "decoders", "the decoder", file);
  const bool is_byte_level = steps.size() == 1 && type_of(steps[0]) == "ByteLevel";
  if (is_byte_level)
    check_fields(steps[0], {"type", "add_prefix_space", "trim_offsets", "use_regex"}, "the decoder ByteLevel", file);
  if (byte_level) {
    if (!steps.empty() && !is_byte_level)
      unsupported(file, "a decoder that is not ByteLevel with the pre_tokenizer ByteLevel");
    return {};
  }
  if (steps.empty()) unsupported(file, "a missing decoder");
  if (is_byte_level) unsupported(file, "the decoder ByteLevel without the pre_tokenizer ByteLevel");
  if (steps.size() == 1 && type_of(steps[0]) == "Metaspace") return metaspace_decoder(steps[0], file);
  return marked_decoder(steps, file);
}

DocumentFrame document_frame(const Json& post_processor, const fs::path& file) {
  DocumentFrame frame;
  bool framed = false;
  for (const Json& step : parts_of(post_processor, "processors", "the post_processor", file)) {
    const std::string type = type_of(step), what = "the post_processor " + type;
    DocumentFrame around;
    if (type == "TemplateProcessing") {
      around = template_frame(step, file);
    } else if (type == "BertProcessing" || type == "RobertaProcessing") {
      check_fields(step, {"type", "sep", "cls", "trim_offsets", "add_prefix_space"}, what, file);
      around = {{step.at("cls").at(1).get<int64_t>()}, {step.at("sep").at(1).get<int64_t>()}};
    } else if (type == "ByteLevel") {  // it changes offsets only
      check_fields(step, {"type", "add_prefix_space", "trim_offsets", "use_regex"}, what, file);
    } else {
      unsupported(file, what);
    }
    // In Hugging Face's the second takes the first one's tokens for a text of their own.
    if (type != "ByteLevel" && std::exchange(framed, true))
      unsupported(file, what + " behind another that writes tokens");
    if (type != "ByteLevel") frame = around;
  }
  return frame;
}

}  // namespace drover
