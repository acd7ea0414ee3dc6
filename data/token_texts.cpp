#include "data/token_texts.h"

#include "data/character_bpe.h"
#include "kernels/base/unicode.h"

namespace drover {

namespace {

std::string replaced(std::string text, const std::string& from, const std::string& to) {
  for (size_t at = 0; (at = text.find(from, at)) != std::string::npos; at += to.size()) {
    text.replace(at, from.size(), to);
  }
  return text;
}

}  // namespace

void TokenTexts::set(int32_t id, const std::string& content) {
  const size_t i = static_cast<size_t>(id);
  if (bytes_.size() <= i) {
    bytes_.resize(i + 1);
    is_byte_.resize(i + 1);
  }
  as_first_.erase(id);
  is_byte_[i] = false;
  bytes_[i] = content;
  if (rule_.kind == DecoderRule::Kind::byte_level) return;
  bytes_[i] = replaced(content, rule_.mark, rule_.space);
  if (rule_.kind == DecoderRule::Kind::metaspace) {
    if (!rule_.first_marks && bytes_[i] != content) as_first_[id] = replaced(content, rule_.mark, "");
  } else if (const auto byte = byte_of_token(bytes_[i])) {
    is_byte_[i] = true;
    bytes_[i] = std::string(1, static_cast<char>(*byte));
  }
}

const std::string& TokenTexts::bytes(int32_t id) const {
  static const std::string nothing;
  return id < 0 || id >= size() ? nothing : bytes_[static_cast<size_t>(id)];
}

const std::string& TokenTexts::bytes_as_first(int32_t id) const {
  const auto found = as_first_.find(id);
  return found == as_first_.end() ? bytes(id) : found->second;
}

bool TokenTexts::is_byte(int32_t id) const { return id >= 0 && id < size() && is_byte_[static_cast<size_t>(id)]; }

std::string TextBuilder::push(int32_t id) {
  if (texts_.bytes(id).empty()) return {};  // a padding row of the model's vocabulary
  if (texts_.rule().kind == DecoderRule::Kind::byte_level) {
    pending_ += texts_.bytes(id);
    if (whole_) return {};
    const size_t certain = pending_.size() - unfinished_utf8(pending_);
    const std::string text = repair_utf8(std::string_view(pending_).substr(0, certain));
    pending_.erase(0, certain);
    return text;
  }
  if (texts_.is_byte(id)) {
    first_ = false;
    pending_ += texts_.bytes(id);
    return whole_ || first_invalid_utf8(pending_) < pending_.size() ? std::string() : flush();
  }
  const std::string before = flush();
  const std::string& text = first_ ? texts_.bytes_as_first(id) : texts_.bytes(id);
  first_ = false;
  return before + shown(text);
}

std::string TextBuilder::finish() { return flush(); }

std::string TextBuilder::flush() {
  std::string text;
  if (texts_.rule().kind == DecoderRule::Kind::byte_level) {
    text = repair_utf8(pending_);
  } else if (first_invalid_utf8(pending_) == pending_.size()) {
    text = pending_;
  } else {
    for (size_t i = 0; i < pending_.size(); ++i) text += "\uFFFD";
  }
  pending_.clear();
  return shown(std::move(text));
}

std::string TextBuilder::shown(std::string text) {
  size_t front = 0;
  while (!past_front_ && front < text.size()) {
    past_front_ = text[front] != ' ' || stripped_ == texts_.rule().strip;
    if (past_front_) break;
    ++stripped_;
    ++front;
  }
  return text.substr(front);
}

}  // namespace drover
