// Public chat templates give generated dialogs the text, ids and trained mask that transformers gives (goldens).
#include <gtest/gtest.h>

#include "data/interpreted_template.h"
#include "data/template_variables.h"
#include "kernels/base/hash.h"
#include "tests/base/scratch_directory.h"
#include "tests/data/tokenizer_files.h"
#include "tests/support/real_files.h"

namespace drover {
namespace {

struct GoldenDialog {
  std::vector<Message> messages;
  RenderOptions options;
};

GoldenDialog dialog_of(const OrderedJson& row) {
  GoldenDialog dialog;
  for (const OrderedJson& m : row["messages"]) {
    Message message{m["role"], "", OrderedJson::object()};
    for (const auto& [field, value] : m.items()) {
      if (field == "content" && value.is_string()) {
        message.content = value;
      } else if (field != "role") {
        message.more[field] = value;
      }
    }
    dialog.messages.push_back(std::move(message));
  }
  dialog.options.tools = row["tools"];
  dialog.options.add_generation_prompt = row["add_generation_prompt"];
  return dialog;
}

std::string short_hash(const std::string& text) { return sha256_hex(text).substr(0, 8); }

class PublicTemplates : public testing::Test {
 protected:
  void SetUp() override {
    directory_ = real_path("DROVER_CHAT_TEMPLATES", "chat-templates");
    if (!directory_) GTEST_SKIP();
    const fs::path file = fs::path(DROVER_SOURCE_DIR) / "tests/golden/templates.json";
    golden_ = OrderedJson::parse(read_text(file, size_t{4} << 20));
    for (const OrderedJson& row : golden_["dialogs"]) dialogs_.push_back(dialog_of(row));
    for (const auto& [name, spelling] : golden_["tokens"].items()) tokens_.emplace_back(name, spelling);
  }
  std::string text_of(const std::string& name) const {
    return read_text(*directory_ / (name + ".jinja"), size_t{1} << 20);
  }

  std::optional<fs::path> directory_;
  OrderedJson golden_;
  std::vector<GoldenDialog> dialogs_;
  InterpretedTemplate::SpecialTokens tokens_;
};

// Where transformers raises, this refuses; anything else that it refuses would be a gap.
TEST_F(PublicTemplates, GiveTheTextOfTransformers) {
  int templates = 0, same = 0, raised = 0;
  for (const auto& [name, golden] : golden_["templates"].items()) {
    const jinja::Template program(text_of(name), name);
    const std::string texts = golden["texts"];
    ++templates;
    for (size_t i = 0; i < dialogs_.size(); ++i) {
      const std::string expected = texts.substr(i * 8, 8);
      const GoldenDialog& d = dialogs_[i];
      std::string got;
      try {
        got = short_hash(
            program.render(template_variables(d.messages, d.options, d.options.add_generation_prompt, tokens_))
                .bytes());
      } catch (const Error& error) {
        EXPECT_EQ(expected[0], '-') << name << ", dialog " << i << ": " << error.what();
        ++raised;
        continue;
      }
      EXPECT_EQ(got, expected) << name << ", dialog " << i;
      ++same;
    }
  }
  EXPECT_GE(templates, 60);
  EXPECT_GE(same, 60 * 150);
  EXPECT_GT(raised, 0);
}

// Bytes are tokens 0 to 255; the template's control tokens have the ids from 256 on.
Tokenizer tokenizer_of(const ScratchDirectory& dir, const OrderedJson& controls) {
  json vocab = json::object(), added = json::array();
  for (int byte = 0; byte < 256; ++byte) vocab[byte_spelling(byte)] = byte;
  int id = 256;
  for (const OrderedJson& control : controls) added.push_back(added_token(id++, control));
  const json whole = {{"added_tokens", added},
                      {"pre_tokenizer", {{"type", "ByteLevel"}, {"add_prefix_space", false}, {"use_regex", true}}},
                      {"model", {{"type", "BPE"}, {"vocab", vocab}, {"merges", json::array()}}}};
  write_text(dir / "tokenizer.json", whole.dump());
  if (std::ranges::find(controls, "</s>") != controls.end())
    write_text(dir / "tokenizer_config.json", R"({"eos_token": "</s>"})");
  return Tokenizer::open(dir.path());
}

TEST_F(PublicTemplates, TrainWhatAnIndependentMaskMarks) {
  int compared = 0;
  for (const auto& [name, golden] : golden_["templates"].items()) {
    const ScratchDirectory dir;
    const Tokenizer tokenizer = tokenizer_of(dir, golden["controls"]);
    const InterpretedTemplate chat(text_of(name), tokens_, name);
    for (const auto& [number, expected] : golden["masks"].items()) {
      const GoldenDialog& d = dialogs_[std::stoul(number)];
      const Rendered r = chat.render(d.messages, tokenizer, d.options);
      EXPECT_EQ(short_hash(json{r.ids, r.trained}.dump()), expected.get<std::string>())
          << name << ", dialog " << number;
      ++compared;
    }
  }
  EXPECT_GE(compared, 60 * 20);
}

// Meta's own texts are known, and native code writes what they write.
TEST_F(PublicTemplates, NativeCodeWritesWhatLlamasTextsWrite) {
  using Family = ChatTemplate::Family;
  const std::vector<std::string> controls{"<|begin_of_text|>", "<|end_of_text|>", "<|start_header_id|>",
                                          "<|end_header_id|>", "<|eot_id|>",      "<|eom_id|>"};
  for (const auto& [name, family] :
       {std::pair{"llama3", Family::llama3}, {"llama3_1", Family::llama3_1}, {"llama3_2", Family::llama3_1}}) {
    const ScratchDirectory dir;
    const Tokenizer tokenizer = tokenizer_of(dir, controls);
    write_text(dir / "tokenizer_config.json",
               json{{"chat_template", text_of(name)}, {"bos_token", "<|begin_of_text|>"}}.dump());
    const auto chat = ChatTemplate::find(dir.path());
    ASSERT_TRUE(chat && chat->family == family) << name;
    int rows = 0;
    for (const json& row : golden_rows("chat.jsonl")) {
      std::vector<Message> dialog;
      for (const json& m : row["messages"]) dialog.push_back({m["role"], m["content"]});
      for (const std::string date : {RenderOptions::kDate, "01 Mar 2025"}) {
        const RenderOptions options{.date = date, .add_generation_prompt = row["add_generation_prompt"]};
        const Rendered native = render(dialog, *chat, tokenizer, options);
        const Rendered own = chat->source->render(dialog, tokenizer, options);
        EXPECT_EQ(native.ids, own.ids) << name << ": " << row["name"];
        EXPECT_EQ(native.trained, own.trained) << name << ": " << row["name"];
      }
      ++rows;
    }
    EXPECT_GE(rows, 80);
  }
}

}  // namespace
}  // namespace drover
