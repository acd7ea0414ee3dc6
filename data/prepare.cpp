#include "data/prepare.h"

#include <algorithm>

#include "data/data_files.h"
#include "data/row_documents.h"
#include "data/rows.h"
#include "kernels/base/error.h"
#include "kernels/base/hash.h"

namespace drover {

std::string store_identity(const PrepareSettings& s, const Tokenizer& tokenizer) {
  std::string text = fmt::format(
      "rows 3\ntokenizer {}\ntemplate {}\ndate {}\ntrain_on {}\nmax_length {}\npacking {}\nbad_rows {}\nwhole_rows "
      "{}\nspecial {}\n",
      tokenizer.fingerprint(), s.chat ? s.chat->name() : "none", s.date, static_cast<int>(s.train_on), s.max_length,
      s.packing, static_cast<int>(s.bad_rows), s.whole_rows, s.special);
  for (const auto& [ours, theirs] : s.fields) text += fmt::format("field {} is {} {}\n", ours, theirs.size(), theirs);
  for (const DataSource& source : s.sources) {
    text += fmt::format("source format {} weight {} repeat {}\n", static_cast<int>(source.format), source.weight,
                        source.repeat);
    for (const fs::path& file : data_files(source.path))
      text += fmt::format("file {}{}\n", sha256_file(file), is_text_file(file) ? " text" : "");
  }
  return sha256_hex(text);
}

namespace {

constexpr size_t kMostComplaints = 10;  // over all files

void add(const ReadReport& read, PrepareReport& report) {
  report.rows_read += read.rows;
  report.rows_skipped += read.skipped;
  report.rows_failed += read.failed;
  for (const auto& [field, rows] : read.ignored) report.ignored[field] += rows;
  for (const std::string& complaint : read.complaints) {
    if (report.complaints.size() < kMostComplaints) report.complaints.push_back(complaint);
  }
}

// Reads all sources in order.
void read_sources(const PrepareSettings& settings, RowDocuments& documents, PrepareReport& report) {
  std::vector<bool> met(settings.fields.size(), false);
  for (size_t i = 0; i < settings.sources.size(); ++i) {
    const DataSource& source = settings.sources[i];
    RowReader reader(source.format, settings.fields);
    for (const fs::path& file : data_files(source.path)) {
      const auto use = [&](const Row& row) { documents.add(row, static_cast<int32_t>(i), file); };
      add(read_rows(file, reader, settings.bad_rows, use), report);
    }
    report.formats.push_back(reader.format());
    for (size_t f = 0; f < met.size(); ++f) met[f] = met[f] || reader.met(f);
  }
  for (size_t f = 0; f < met.size(); ++f) {
    if (!met[f]) report.unmet_fields.push_back(settings.fields[f].second);
  }
}

[[noreturn]] void fail_without_documents(const PrepareSettings& settings, const PrepareReport& report,
                                         const std::string& names) {
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

}  // namespace

TokenStore prepare(const PrepareSettings& settings, const Tokenizer& tokenizer, PrepareReport& report,
                   TokenStore store) {
  store.set_identity(store_identity(settings, tokenizer));
  RowDocuments documents(settings, tokenizer, store, report);
  read_sources(settings, documents, report);
  std::vector<std::string> names;
  std::vector<double> repeats;
  for (const DataSource& source : settings.sources) {
    names.push_back(source.path.string());
    repeats.push_back(source.repeat);
  }
  const std::string all = fmt::format("{}", fmt::join(names, ", "));
  if (store_identity(settings, tokenizer) != store.identity())
    fail(Fault::io, "{}: the data changed while it was read; start again once it is written", all);
  if (store.documents() == 0) fail_without_documents(settings, report, all);
  store.set_repeats(std::move(repeats));
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
