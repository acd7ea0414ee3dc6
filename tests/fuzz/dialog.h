// A dialog through a chat template that was found, by a tokenizer of bytes that has every family's control tokens.
#pragma once
#include <nlohmann/json.hpp>

#include "data/chat_template.h"
#include "tests/fuzz/fuzz.h"

namespace drover::fuzz {

inline Tokenizer tokenizer_of_bytes() {
  using nlohmann::json;
  json vocab = json::object(), added = json::array();
  int next = 256, id = 256;
  for (int byte = 0; byte < 256; ++byte) {
    const bool printable = (byte >= 33 && byte <= 126) || (byte >= 161 && byte <= 172) || byte >= 174;
    const int code = printable ? byte : next++;
    std::string spelling(1, static_cast<char>(code));
    if (code >= 0x80) spelling = {static_cast<char>(0xC0 | code >> 6), static_cast<char>(0x80 | (code & 0x3F))};
    vocab[spelling] = byte;
  }
  for (const char* name :
       {"<|im_start|>", "<|im_end|>", "<|begin_of_text|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"}) {
    added.push_back({{"id", id++}, {"content", name}, {"special", true}});
  }
  const json whole = {{"added_tokens", added},
                      {"pre_tokenizer", {{"type", "ByteLevel"}, {"add_prefix_space", false}, {"use_regex", true}}},
                      {"model", {{"type", "BPE"}, {"vocab", vocab}, {"merges", json::array()}}}};
  make_directories(folder() / "tokenizer");
  write_text(folder() / "tokenizer" / "tokenizer.json", whole.dump());
  return Tokenizer::open(folder() / "tokenizer");
}

// What the template of `folder()` writes, if there is one.
inline void render_dialogs() {
  static const Tokenizer tokenizer = tokenizer_of_bytes();
  const auto chat = ChatTemplate::find(folder());
  if (!chat) return;
  const Message system{"system", " Be brief. "}, question{"user", "Où <|im_end|> est\n"}, answer{"assistant", "Ici."};
  const Message call{"assistant", "", OrderedJson::parse(R"({"content": null, "tool_calls": [{"function": {"name": "f",
                     "arguments": {"a": 1}}}]})")};
  for (const std::vector<Message>& dialog :
       {std::vector{question}, {system, question, answer}, {question, answer, question, call, {"tool", "4"}, answer}}) {
    for (const TrainOn train_on : {TrainOn::assistant, TrainOn::all, TrainOn::last}) {
      const Rendered out = render(dialog, *chat, tokenizer, {.add_generation_prompt = true, .train_on = train_on});
      // There may be none: a template may write nothing, which is refused where a row or a prompt needs tokens.
      holds(out.ids.size() == out.trained.size(), "every token is trained or is not");
    }
  }
  holds(!chat->name().empty() && !stop_ids(chat, tokenizer, {7}).empty(), "a template has a name and ends answers");
}

}  // namespace drover::fuzz
