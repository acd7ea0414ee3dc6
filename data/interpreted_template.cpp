#include "data/interpreted_template.h"

#include <algorithm>

#include "data/template_variables.h"
#include "kernels/base/error.h"
#include "kernels/base/hash.h"

namespace drover {

namespace {

using jinja::Origin;

struct Span {  // bytes [begin, end)
  size_t begin = 0, end = 0;
};

struct Encoded {
  std::vector<int32_t> ids;
  std::vector<size_t> begins;  // of each id in the text
};

// Control tokens are looked for in what the template itself wrote.
Encoded encoded(const jinja::Text& text, const Tokenizer& tokenizer) {
  std::vector<Tokenizer::Range> written;
  size_t begin = 0;
  for (const jinja::Text::Run& run : text.runs()) {
    if (run.origin.source == Origin::Source::written) {
      if (!written.empty() && written.back().end == begin) {
        written.back().end = run.end;
      } else {
        written.push_back({begin, run.end});
      }
    }
    begin = run.end;
  }
  Encoded out;
  out.ids = tokenizer.encode_rendered(text.bytes(), written, out.begins);
  return out;
}

bool contributes(const Origin& origin, int32_t message) {
  return origin.message == message &&
         (origin.source == Origin::Source::content || origin.source == Origin::Source::call);
}

// From the first to the last byte that a message contributes; nothing where it contributes none.
std::optional<Span> contribution(const jinja::Text& text, size_t message) {
  std::optional<Span> span;
  size_t begin = 0;
  for (const jinja::Text::Run& run : text.runs()) {
    if (contributes(run.origin, static_cast<int32_t>(message))) span = {span ? span->begin : begin, run.end};
    begin = run.end;
  }
  return span;
}

// Where the first byte stands that belongs to a message behind `message`, or the text's end.
size_t next_turn(const jinja::Text& text, size_t message) {
  size_t begin = 0;
  for (const jinja::Text::Run& run : text.runs()) {
    if (run.origin.message > static_cast<int32_t>(message)) return begin;
    begin = run.end;
  }
  return text.size();
}

// The first control token from `from` on that begins before `before`: its place among the ids.
std::optional<size_t> first_control(const Encoded& e, const Tokenizer& tokenizer, size_t from, size_t before) {
  for (size_t i = 0; i < e.ids.size(); ++i) {
    if (e.begins[i] >= before) break;
    if (e.begins[i] >= from && tokenizer.is_special(e.ids[i])) return i;
  }
  return std::nullopt;
}

}  // namespace

// Finds what is trained of one rendered dialog.
class InterpretedTemplate::Training {
 public:
  Training(const InterpretedTemplate& chat, const std::vector<Message>& dialog, const Tokenizer& tokenizer,
           const RenderOptions& options, const jinja::Text& text, const Encoded& e)
      : chat_(chat), dialog_(dialog), tokenizer_(tokenizer), options_(options), text_(text), encoded_(e) {}

  void mark(Rendered& out) {
    out.trained.assign(out.ids.size(), options_.train_on == TrainOn::all);
    if (options_.train_on == TrainOn::all) return;
    for (const Span& span : chat_.program_.has_generation() ? marked_spans() : answers(out.rewritten)) {
      for (size_t i = 0; i < out.ids.size(); ++i) {
        const size_t end = i + 1 < out.ids.size() ? encoded_.begins[i + 1] : text_.size();
        if (end > span.begin && encoded_.begins[i] < span.end) out.trained[i] = 1;
      }
    }
  }

 private:
  // {% generation %} blocks, but for those of turns that are not to be learnt.
  std::vector<Span> marked_spans() const {
    std::vector<Span> spans;
    bool wanted = true, inside = false;
    size_t begin = 0;
    for (const jinja::Text::Run& run : text_.runs()) {
      if (run.origin.generated) {
        if (!inside) {
          spans.push_back({begin, begin});
          wanted = true;
        }
        spans.back().end = run.end;
        if (run.origin.message >= 0) wanted &= dialog_[static_cast<size_t>(run.origin.message)].train;
      }
      if (!run.origin.generated && inside && !wanted) spans.pop_back();
      inside = run.origin.generated;
      begin = run.end;
    }
    if (inside && !wanted) spans.pop_back();
    if (options_.train_on == TrainOn::last && spans.size() > 1) spans.erase(spans.begin(), spans.end() - 1);
    return spans;
  }

  std::vector<Span> answers(int64_t& rewritten) {
    std::vector<Span> spans;
    end_of_turn_ = chat_.end_of_turn(tokenizer_);
    bool last = true;
    for (size_t i = dialog_.size(); i-- > 0;) {
      if (dialog_[i].role != "assistant") continue;
      const bool wanted = dialog_[i].train && (last || options_.train_on != TrainOn::last);
      last = false;
      if (!wanted) continue;
      if (const auto span = answer(i)) {
        spans.push_back(*span);
      } else {
        ++rewritten;
      }
    }
    return spans;
  }

  // Nothing where an answer that is followed by other turns is written otherwise than when it was given.
  std::optional<Span> answer(size_t i) const {
    const std::optional<Span> said = contribution(text_, i);
    if (i + 1 < dialog_.size() && !is_as_given(i, said)) return std::nullopt;
    Span span = said.value_or(Span{});
    const bool from_call = said && text_.origin_at(said->begin).source == Origin::Source::call;
    if (!said || from_call) {
      const std::optional<size_t> begin = beginning_of_answer(i);
      if (!begin && !said) return Span{};
      if (begin && (!said || *begin <= said->begin)) span.begin = *begin;
      if (!said) span.end = span.begin;
    }
    const auto control = first_control(encoded_, tokenizer_, span.end, next_turn(text_, i));
    if (control && is_end(encoded_.ids[*control]))
      span.end = *control + 1 < encoded_.begins.size() ? encoded_.begins[*control + 1] : text_.size();
    return span;
  }

  bool is_end(int32_t id) const { return id == end_of_turn_ || id == tokenizer_.eos(); }

  bool is_as_given(size_t i, const std::optional<Span>& said) const {
    try {
      const jinja::Text given = chat_.text_of(std::span(dialog_).first(i + 1), options_, false);
      const std::optional<Span> then = contribution(given, i);
      if (said.has_value() != then.has_value()) return false;
      return !said || text_.bytes().substr(0, said->end) == given.bytes().substr(0, then->end);
    } catch (const Error&) {
      return false;  // the template does not end a dialog there
    }
  }

  // Where the generation prompt ends that asks for message i; nothing where the text does not begin with it.
  std::optional<size_t> beginning_of_answer(size_t i) const {
    if (i == 0) return std::nullopt;
    try {
      const jinja::Text asked = chat_.text_of(std::span(dialog_).first(i), options_, true);
      return text_.bytes().starts_with(asked.bytes()) ? std::optional(asked.size()) : std::nullopt;
    } catch (const Error&) {
      return std::nullopt;
    }
  }

  const InterpretedTemplate& chat_;
  const std::vector<Message>& dialog_;
  const Tokenizer& tokenizer_;
  const RenderOptions& options_;
  const jinja::Text& text_;
  const Encoded& encoded_;
  std::optional<int32_t> end_of_turn_;
};

InterpretedTemplate::InterpretedTemplate(const std::string& text, SpecialTokens special_tokens,
                                         const std::string& where)
    : text_(text), program_(text, where), special_tokens_(std::move(special_tokens)), hash_(hash_of(text)) {}

bool InterpretedTemplate::names(const std::string& word) const {
  const auto part_of_word = [&](size_t i) {
    return i < text_.size() && (std::isalnum(static_cast<unsigned char>(text_[i])) != 0 || text_[i] == '_');
  };
  for (size_t at = 0; (at = text_.find(word, at)) != std::string::npos; ++at) {
    if (!(at > 0 && part_of_word(at - 1)) && !part_of_word(at + word.size())) return true;
  }
  return false;
}

std::string InterpretedTemplate::hash_of(const std::string& text) {
  std::string plain = text;
  std::erase(plain, '\r');
  plain.erase(plain.find_last_not_of(" \t\n") + 1);
  return sha256_hex(plain);
}

jinja::Text InterpretedTemplate::text_of(std::span<const Message> dialog, const RenderOptions& options,
                                         bool generation_prompt) const {
  jinja::Template::Variables variables;
  try {
    variables = template_variables(dialog, options, generation_prompt, special_tokens_);
  } catch (const jinja::Refusal& refusal) {
    fail(Fault::bad_data, "the dialog is too large for a chat template: {}", refusal.what());
  }
  return program_.render(variables);
}

Rendered InterpretedTemplate::render(const std::vector<Message>& dialog, const Tokenizer& tokenizer,
                                     const RenderOptions& options) const {
  const jinja::Text text = text_of(dialog, options, options.add_generation_prompt);
  const Encoded e = encoded(text, tokenizer);
  Rendered out{.ids = e.ids};
  Training(*this, dialog, tokenizer, options, text, e).mark(out);
  return out;
}

std::optional<int32_t> InterpretedTemplate::end_of_turn(const Tokenizer& tokenizer) const {
  const std::vector<Message> dialog{{"user", "a"}, {"assistant", "b"}};
  try {
    const jinja::Text text = text_of(dialog, {}, false);
    const std::optional<Span> said = contribution(text, 1);
    const Encoded e = encoded(text, tokenizer);
    const auto control = said ? first_control(e, tokenizer, said->end, text.size()) : std::nullopt;
    return control ? std::optional(e.ids[*control]) : std::nullopt;
  } catch (const Error&) {
    return std::nullopt;  // it does not take such a dialog
  }
}

}  // namespace drover
