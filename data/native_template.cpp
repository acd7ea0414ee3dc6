#include "data/native_template.h"

#include <algorithm>

#include "kernels/base/error.h"
#include "kernels/base/unicode.h"

namespace drover {

namespace {

// Collects the text with its control tokens, which is encoded as one: a control token may take white space next to it,
// and some tokenizers write what follows one otherwise than the beginning of a text.
class Writer {
 public:
  explicit Writer(const Tokenizer& tokenizer) : tokenizer_(tokenizer) {}

  void control(const std::string& spelling, bool trained = false) {
    end_piece();
    if (!tokenizer_.special(spelling)) {
      fail(Fault::bad_data,
           "the tokenizer has no special token {}, which the chat template needs; set data.template to the one that "
           "this model was trained with",
           spelling);
    }
    written_.push_back({text_.size(), text_.size() + spelling.size()});
    if (trained) trained_.push_back(written_.back());
    text_ += spelling;
  }
  // From the first trained text on, all of a piece is trained, and so is a token that reaches into it.
  void text(std::string_view words, bool trained = false) {
    if (trained && !trained_from_) trained_from_ = text_.size();
    text_ += words;
  }
  Rendered finish() {
    end_piece();
    Rendered out;
    std::vector<size_t> begins;
    out.ids = tokenizer_.encode_rendered(text_, written_, begins);
    out.trained.resize(out.ids.size());
    auto range = trained_.begin();
    for (size_t i = 0; i < out.ids.size(); ++i) {
      const size_t end = i + 1 < begins.size() ? begins[i + 1] : text_.size();
      while (range != trained_.end() && range->end <= begins[i]) ++range;
      out.trained[i] = range != trained_.end() && end > range->begin;
    }
    return out;
  }

 private:
  void end_piece() {
    if (trained_from_ && *trained_from_ < text_.size()) trained_.push_back({*trained_from_, text_.size()});
    trained_from_.reset();
  }
  const Tokenizer& tokenizer_;
  std::string text_;
  std::vector<Tokenizer::Range> written_;  // control tokens
  std::vector<Tokenizer::Range> trained_;
  std::optional<size_t> trained_from_;
};

void render_chatml(const std::vector<Message>& dialog, const ChatTemplate& chat, const RenderOptions& options,
                   const std::vector<bool>& trained, Writer& out) {
  if (chat.default_system && dialog.front().role != "system") {
    out.control("<|im_start|>");
    out.text("system\n" + *chat.default_system);
    out.control("<|im_end|>");
    out.text("\n");
  }
  for (size_t i = 0; i < dialog.size(); ++i) {
    out.control("<|im_start|>");
    out.text(dialog[i].role + "\n");
    out.text(dialog[i].content, trained[i]);
    out.control("<|im_end|>", trained[i]);
    out.text("\n");
  }
  if (!options.add_generation_prompt) return;
  out.control("<|im_start|>");
  out.text("assistant\n");
}

void render_llama3(const std::vector<Message>& dialog, bool dated, const RenderOptions& options,
                   const std::vector<bool>& trained, Writer& out) {
  const auto header = [&](const std::string& role) {
    out.control("<|start_header_id|>");
    out.text(role);
    out.control("<|end_header_id|>");
    out.text("\n\n");
  };
  out.control("<|begin_of_text|>");
  size_t first = 0;
  if (dated) {
    header("system");
    out.text("Cutting Knowledge Date: December 2023\nToday Date: " + options.date + "\n\n");
    if (dialog.front().role == "system") {
      out.text(strip(dialog.front().content));
      first = 1;
    }
    out.control("<|eot_id|>");
  }
  for (size_t i = first; i < dialog.size(); ++i) {
    header(dialog[i].role);
    out.text(strip(dialog[i].content), trained[i]);
    out.control("<|eot_id|>", trained[i]);
  }
  if (options.add_generation_prompt) header("assistant");
}

// Which turns are trained.
std::vector<bool> trained_turns(const std::vector<Message>& dialog, TrainOn train_on) {
  std::vector<bool> trained(dialog.size());
  bool last = true;
  for (size_t i = dialog.size(); i-- > 0;) {
    if (dialog[i].role != "assistant") continue;
    trained[i] = dialog[i].train && (last || train_on != TrainOn::last);
    last = false;
  }
  return trained;
}

}  // namespace

bool is_plain(const std::vector<Message>& dialog, const RenderOptions& options) {
  return options.tools.empty() && std::ranges::all_of(dialog, [](const Message& m) {
           return m.more.empty() && (m.role == "system" || m.role == "user" || m.role == "assistant");
         });
}

Rendered render_native(const std::vector<Message>& dialog, const ChatTemplate& chat, const Tokenizer& tokenizer,
                       const RenderOptions& options) {
  const std::vector<bool> trained = trained_turns(dialog, options.train_on);
  Writer out(tokenizer);
  if (chat.family == ChatTemplate::Family::chatml) {
    render_chatml(dialog, chat, options, trained, out);
  } else {
    render_llama3(dialog, chat.family == ChatTemplate::Family::llama3_1, options, trained, out);
  }
  Rendered rendered = out.finish();
  if (options.train_on == TrainOn::all) rendered.trained.assign(rendered.trained.size(), 1);
  return rendered;
}

}  // namespace drover
