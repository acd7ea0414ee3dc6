#include "data/prepare.h"

#include <algorithm>

#include "kernels/base/error.h"
#include "kernels/base/hash.h"

namespace drover {

std::string store_identity(const PrepareSettings& s, const Tokenizer& tokenizer) {
  std::string text = fmt::format(
      "rows 3\ntokenizer {}\ntemplate {}\ndate {}\ntrain_on {}\nmax_length {}\npacking {}\nbad_rows {}\nwhole_rows "
      "{}\n",
      tokenizer.fingerprint(), s.chat ? s.chat->name() : "none", s.date, static_cast<int>(s.train_on), s.max_length,
      s.packing, static_cast<int>(s.bad_rows), s.whole_rows);
  for (const DataSource& source : s.sources) {
    text += fmt::format("source {} format {} weight {}\n", sha256_file(source.path), static_cast<int>(source.format),
                        source.weight);
  }
  return sha256_hex(text);
}

namespace {

class Preparer {
 public:
  Preparer(const PrepareSettings& settings, const Tokenizer& tokenizer, TokenStore& store, PrepareReport& report)
      : settings_(settings), tokenizer_(tokenizer), store_(store), report_(report) {}

  void add(const Row& row, const DataSource& source) {
    // Whole rows are evaluated: each of their tokens counts once.
    const float weight = static_cast<float>(source.weight) * (settings_.whole_rows ? 1 : row.weight);
    if (row.messages.empty()) {
      add_text(row.text, weight);
      return;
    }
    check_template(source.path, row.line);
    add_dialog(row, weight);
  }

 private:
  // What no dialog can be rendered with is not the fault of a row, which might be skipped.
  void check_template(const fs::path& file, int64_t line) {
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

  void add_dialog(const Row& row, float weight) {
    const RenderOptions options{.date = settings_.date, .train_on = settings_.train_on, .tools = row.tools};
    const auto is_left_out = [](const Message& m) { return !m.train; };
    if (settings_.train_on == TrainOn::all && !settings_.whole_rows && std::ranges::any_of(row.messages, is_left_out)) {
      fail(Fault::bad_data,
           "a message is not to be learnt (weight 0, train or loss false), and data.train_on: all trains every token; "
           "set data.train_on: assistant, or take it out");
    }
    std::vector<std::string> ignored;
    const std::vector<Message> messages = as_read(row.messages, row.tools, *settings_.chat, &ignored);
    Rendered r = render(messages, *settings_.chat, tokenizer_, options);
    for (const std::string& field : ignored) ++report_.ignored[field];
    report_.rewritten += r.rewritten;
    if (settings_.whole_rows) return keep_whole(r.ids, r.trained, weight);
    const size_t limit = static_cast<size_t>(settings_.max_length);
    if (r.ids.size() > limit) {
      ++report_.cut;
      const auto trained = std::ranges::find(r.trained, uint8_t{1});
      if (trained != r.trained.end() && trained - r.trained.begin() >= settings_.max_length)
        ++report_.cut_before_answers;
      r.ids.resize(limit);
      r.trained.resize(limit);
    }
    keep(r.ids, r.trained, weight);
  }

  void add_text(const std::string& text, float weight) {
    const std::vector<int32_t> ids = tokenizer_.encode_document(text);
    if (settings_.whole_rows) return keep_whole(ids, std::vector<uint8_t>(ids.size(), 1), weight);
    const size_t limit = static_cast<size_t>(settings_.max_length);
    if (ids.size() > limit) ++report_.split;
    size_t begin = 0;
    do {
      const size_t left = ids.size() - begin;
      const bool leaves_one = left == limit + 1 && limit > 2;  // and one token has nothing to learn from
      const size_t count = leaves_one ? limit - 1 : std::min(limit, left);
      keep(std::span(ids).subspan(begin, count), std::vector<uint8_t>(count, 1), weight);
      begin += count;
    } while (begin < ids.size());
  }

  void keep_whole(std::span<const int32_t> ids, std::span<const uint8_t> trained, float weight) {
    if (ids.empty()) fail(Fault::bad_data, "the row has no tokens");
    if (static_cast<int64_t>(ids.size()) > settings_.max_length) {
      fail(Fault::bad_data, "the row has {} tokens, and at most {} fit (data.max_length)", ids.size(),
           settings_.max_length);
    }
    store_.add_document(ids, trained, weight);
  }

  void keep(std::span<const int32_t> ids, std::span<const uint8_t> trained, float weight) {
    bool any = false;
    for (size_t i = 1; i < trained.size(); ++i) any = any || trained[i] != 0;
    if (!any || weight == 0) {
      ++report_.dropped;
      return;
    }
    store_.add_document(ids, trained, weight);
  }

  const PrepareSettings& settings_;
  const Tokenizer& tokenizer_;
  TokenStore& store_;
  PrepareReport& report_;
  bool template_checked_ = false;
};

}  // namespace

TokenStore prepare(const PrepareSettings& settings, const Tokenizer& tokenizer, PrepareReport& report) {
  TokenStore store;
  store.set_identity(store_identity(settings, tokenizer));
  Preparer preparer(settings, tokenizer, store, report);
  std::string names;
  for (const DataSource& source : settings.sources) {
    names += (names.empty() ? "" : ", ") + source.path.string();
    const ReadReport read =
        read_rows(source.path, source.format, settings.bad_rows, [&](const Row& row) { preparer.add(row, source); });
    report.rows_read += read.rows;
    report.rows_skipped += read.skipped;
    report.rows_failed += read.failed;
    for (const auto& [field, rows] : read.ignored) report.ignored[field] += rows;
    report.complaints.insert(report.complaints.end(), read.complaints.begin(), read.complaints.end());
  }
  if (store_identity(settings, tokenizer) != store.identity())
    fail(Fault::io, "{}: the data changed while it was read; start again once it is written", names);
  if (store.documents() == 0) {
    if (report.cut_before_answers > 0) {
      fail(Fault::bad_data,
           "{}: no token to train on: in {} of {} rows the answer begins behind data.max_length, {}; raise it", names,
           report.cut_before_answers, report.rows_read, settings.max_length);
    }
    fail(Fault::bad_data,
         "{}: no token to train on ({} rows read, {} skipped, {} without a trained token); check the rows and "
         "data.train_on",
         names, report.rows_read, report.rows_skipped, report.dropped);
  }
  store.make_rows(settings.packing, settings.max_length);
  return store;
}

std::string show(const Document& document, const Tokenizer& tokenizer, const std::string& open_mark,
                 const std::string& close_mark) {
  StreamDecoder stream(tokenizer, false);
  std::string text;
  for (size_t i = 0; i < document.ids.size();) {
    size_t end = i;
    std::string part;
    for (; end < document.ids.size() && (document.trained[end] != 0) == (document.trained[i] != 0); ++end) {
      const int32_t id = document.ids[end];
      const bool control = tokenizer.is_special(id);
      if (control) part += stream.finish() + "⟨";
      part += stream.push(id);
      if (control) part += stream.finish() + "⟩";
    }
    part += stream.finish();
    text += document.trained[i] != 0 ? open_mark + part + close_mark : part;
    i = end;
  }
  return text;
}

}  // namespace drover
