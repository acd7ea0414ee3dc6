#include "data/row_documents.h"

#include <algorithm>

#include "kernels/base/error.h"

namespace drover {

RowDocuments::RowDocuments(const PrepareSettings& settings, const Tokenizer& tokenizer, TokenStore& store,
                           PrepareReport& report)
    : settings_(settings), tokenizer_(tokenizer), store_(store), report_(report), spellings_(tokenizer) {}

void RowDocuments::add(const Row& row, int32_t source, const fs::path& file) {
  origin_ = {origin_.row + 1, source};
  // Whole rows are evaluated: each of their tokens counts once.
  weight_ = static_cast<float>(settings_.sources[static_cast<size_t>(source)].weight) *
            (settings_.whole_rows ? 1 : row.weight);
  if (!row.ids.empty()) return add_ids(row);
  if (!row.messages.empty() && (settings_.chat || !row.prompt)) {
    check_template(file, row.line);
    return add_dialog(row);
  }
  if (!settings_.special && (spellings_.stand_in(row.text) || (row.prompt && spellings_.stand_in(*row.prompt))))
    ++report_.rendered;
  if (!row.prompt) return add_text(row.text);
  if (!tokenizer_.eos()) {
    fail(Fault::bad_recipe,
         "{}:{}: a completion ends with EOS, and the tokenizer names none; set eos_token in its tokenizer_config.json",
         file.string(), row.line);
  }
  if (!row.messages.empty()) ++report_.alpaca_prompts;
  add_completion(row);
}

// What no dialog can be rendered with is not the fault of a row, which might be skipped.
void RowDocuments::check_template(const fs::path& file, int64_t line) {
  if (template_checked_) return;
  if (!settings_.chat) {
    fail(Fault::bad_recipe,
         "{}:{}: a row of messages needs a chat template, and the model's directory has none; set data.template to "
         "chatml, llama3 or llama3.1",
         file.string(), line);
  }
  if (settings_.chat->family == ChatTemplate::Family::interpreted) {  // it may demand other turns
    template_checked_ = true;
    return;
  }
  try {
    render({{"user", "a"}, {"assistant", "b"}}, *settings_.chat, tokenizer_,
           {settings_.date, false, settings_.train_on});
  } catch (const Error& error) {
    fail(Fault::bad_recipe, "{}:{}: {}", file.string(), line, error.what());
  }
  template_checked_ = true;
}

void RowDocuments::add_dialog(const Row& row) {
  const RenderOptions options{.date = settings_.date, .train_on = settings_.train_on, .tools = row.tools};
  const auto is_left_out = [](const Message& m) { return !m.train; };
  if (settings_.train_on == TrainOn::all && !settings_.whole_rows && std::ranges::any_of(row.messages, is_left_out)) {
    fail(Fault::bad_data,
         "a message is not to be learnt (weight 0, train or loss false), and data.train_on: all trains every token; "
         "set data.train_on: assistant, or take it out");
  }
  std::vector<std::string> ignored;
  std::vector<Message> messages = as_read(row.messages, row.tools, *settings_.chat, &ignored);
  if (settings_.train_on != TrainOn::all) {
    for (size_t i = 0; i < row.given; ++i) messages[i].train = messages[i].role != "assistant";
  }
  Rendered r = render(messages, *settings_.chat, tokenizer_, options);
  for (const std::string& field : ignored) ++report_.ignored[field];
  report_.rewritten += r.rewritten;
  keep_cut(std::move(r.ids), std::move(r.trained));
}

std::vector<int32_t> RowDocuments::encoded(const std::string& text, std::vector<size_t>& begins) const {
  if (!settings_.special) return tokenizer_.encode(text, &begins);
  const Tokenizer::Range whole{0, text.size()};
  return tokenizer_.encode_rendered(text, {&whole, 1}, begins);
}

// Of the tokenizer's frame, what a text with control tokens does not bring itself.
RowDocuments::Frame RowDocuments::missing_frame(const std::vector<int32_t>& ids) const {
  const std::vector<int32_t>&before = tokenizer_.before(), &after = tokenizer_.after();
  const bool begun = ids.size() >= before.size() && std::equal(before.begin(), before.end(), ids.begin());
  const bool ended = ids.size() >= after.size() && std::equal(after.rbegin(), after.rend(), ids.rbegin());
  const std::vector<int32_t> none;
  return {begun ? none : before, ended ? none : after};
}

// Prompt and completion are tokenised as the one text that they are; the first token with a character of the completion
// is the first that is trained.
void RowDocuments::add_completion(const Row& row) {
  const std::string text = *row.prompt + row.text;
  const size_t border = row.prompt->size();
  std::vector<size_t> begins;
  std::vector<int32_t> ids = encoded(text, begins);
  std::vector<uint8_t> trained(ids.size(), 1);
  for (size_t i = 0; i < ids.size() && settings_.train_on != TrainOn::all; ++i) {
    const size_t end = i + 1 < ids.size() ? begins[i + 1] : text.size();
    trained[i] = end > border ? 1 : 0;
    if (begins[i] < border && border < end) ++report_.within_token;
  }
  if (ids.empty() || ids.back() != *tokenizer_.eos()) {
    ids.push_back(*tokenizer_.eos());
    trained.push_back(1);
  }
  const Frame missing = missing_frame(ids);
  ids.insert(ids.begin(), missing.before.begin(), missing.before.end());
  trained.insert(trained.begin(), missing.before.size(), 0);
  ids.insert(ids.end(), missing.after.begin(), missing.after.end());
  trained.insert(trained.end(), missing.after.size(), 1);
  keep_cut(std::move(ids), std::move(trained));
}

void RowDocuments::add_text(const std::string& text) {
  std::vector<size_t> begins;
  std::vector<int32_t> ids = encoded(text, begins);
  const Frame missing = missing_frame(ids);
  ids.insert(ids.begin(), missing.before.begin(), missing.before.end());
  ids.insert(ids.end(), missing.after.begin(), missing.after.end());
  keep_split(ids);
}

void RowDocuments::add_ids(const Row& row) {
  for (const int32_t id : row.ids) {
    if (id >= tokenizer_.vocab_size())
      fail(Fault::bad_data, "the id {} is not in the tokenizer's vocabulary, of {} ids", id, tokenizer_.vocab_size());
  }
  if (!row.trained) return keep_split(row.ids);
  const bool leaves_out = std::ranges::find(*row.trained, 0) != row.trained->end();
  if (settings_.train_on != TrainOn::all || !leaves_out) return keep_cut(row.ids, *row.trained);
  // Of whole rows every token is asked for, as of a dialog.
  if (settings_.whole_rows) return keep_whole(row.ids, std::vector<uint8_t>(row.ids.size(), 1));
  fail(Fault::bad_data,
       "\"labels\" leaves tokens out, and data.train_on: all trains every token; set data.train_on: assistant, or take "
       "\"labels\" out");
}

// What has a beginning and an answer is cut at the end.
void RowDocuments::keep_cut(std::vector<int32_t> ids, std::vector<uint8_t> trained) {
  if (settings_.whole_rows) return keep_whole(ids, trained);
  const size_t limit = static_cast<size_t>(settings_.max_length);
  if (ids.size() > limit) {
    ++report_.cut;
    const auto first = std::ranges::find(trained, uint8_t{1});
    if (first != trained.end() && first - trained.begin() >= settings_.max_length) ++report_.cut_before_answers;
    ids.resize(limit);
    trained.resize(limit);
  }
  keep(ids, trained);
}

void RowDocuments::keep_split(const std::vector<int32_t>& ids) {
  if (settings_.whole_rows) return keep_whole(ids, std::vector<uint8_t>(ids.size(), 1));
  const size_t limit = static_cast<size_t>(settings_.max_length);
  if (ids.size() > limit) ++report_.split;
  size_t begin = 0;
  do {
    const size_t left = ids.size() - begin;
    const bool leaves_one = left == limit + 1 && limit > 2;  // and one token has nothing to learn from
    const size_t count = leaves_one ? limit - 1 : std::min(limit, left);
    keep(std::span(ids).subspan(begin, count), std::vector<uint8_t>(count, 1));
    begin += count;
  } while (begin < ids.size());
}

void RowDocuments::keep_whole(std::span<const int32_t> ids, std::span<const uint8_t> trained) {
  if (ids.empty()) fail(Fault::bad_data, "the row has no tokens");
  if (static_cast<int64_t>(ids.size()) > settings_.max_length) {
    fail(Fault::bad_data, "the row has {} tokens, and at most {} fit (data.max_length)", ids.size(),
         settings_.max_length);
  }
  store_.add_document(ids, trained, weight_, origin_);
}

void RowDocuments::keep(std::span<const int32_t> ids, std::span<const uint8_t> trained) {
  bool any = false;
  for (size_t i = 1; i < trained.size(); ++i) any = any || trained[i] != 0;
  if (!any || weight_ == 0) {
    ++report_.dropped;
    return;
  }
  store_.add_document(ids, trained, weight_, origin_);
}

}  // namespace drover
