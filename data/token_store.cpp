#include "data/token_store.h"

#include <algorithm>
#include <functional>

#include "kernels/base/append_file.h"
#include "kernels/base/hash.h"
#include "kernels/base/hdf5.h"

namespace drover {

namespace {

constexpr int64_t kVersion = 4;

// "\nsha256 " and 64 digits at the end of the file, which HDF5 passes over.
constexpr std::string_view kSealMark = "\nsha256 ";
constexpr size_t kSealBytes = kSealMark.size() + 64;

void seal(const fs::path& path) {
  const std::string mark = std::string(kSealMark) + sha256_file(path);
  AppendFile(path, AppendFile::Begin::keep).write(mark);
}

bool sealed(const MappedFile& file) {
  constexpr size_t kPieceBytes = size_t{4} << 20;
  const std::string_view bytes(reinterpret_cast<const char*>(file.bytes().data()), file.bytes().size());
  if (bytes.size() < kSealBytes) return false;
  const std::string_view body = bytes.substr(0, bytes.size() - kSealBytes), mark = bytes.substr(body.size());
  Sha256 hash;
  for (size_t at = 0; at < body.size(); at += kPieceBytes) {
    const std::string_view piece = body.substr(at, kPieceBytes);
    hash.update(piece.data(), piece.size());
    file.advise_done(at, piece.size());
  }
  return mark.starts_with(kSealMark) && mark.substr(kSealMark.size()) == hash.hex();
}

// Numbers on their way to the rows of a dataset.
template <typename T>
class Column {
 public:
  Column(hdf5::File& file, const char* name, int64_t rows) : file_(file), name_(name) {
    file.create_dataset(name, hdf5::type_of<T>(), {rows, 0}, hdf5::Layout::contiguous);
  }
  void add(std::span<const T> values) {
    waiting_.insert(waiting_.end(), values.begin(), values.end());
    if (waiting_.size() >= kAtOnce) flush();
  }
  void flush() {
    file_.write_rows(name_, hdf5::type_of<T>(), done_, static_cast<int64_t>(waiting_.size()), waiting_.data());
    done_ += static_cast<int64_t>(waiting_.size());
    waiting_.clear();
  }

 private:
  static constexpr size_t kAtOnce = size_t{1} << 18;
  hdf5::File& file_;
  const char* name_;
  int64_t done_ = 0;
  std::vector<T> waiting_;
};

}  // namespace

TokenStore TokenStore::made_in(const fs::path& directory) {
  TokenStore store;
  store.columns_ = std::make_shared<TokenColumns>(directory);
  return store;
}

Document TokenStore::document(int64_t ordinal) const {
  const Entry& entry = entries_[static_cast<size_t>(ordinal)];
  const auto [ids, trained] = columns_->part(entry.begin, entry.size);
  return {ids, trained, entry.weight, ordinal, entry.origin};
}

void TokenStore::each_document(const std::function<void(const Document&)>& use) const {
  for (int64_t d = 0; d < documents(); ++d) use(document(d));
}

int64_t TokenStore::row_tokens(int64_t index) const {
  const auto [first, last] = row(index);
  int64_t tokens = 0;
  for (int64_t d = first; d < last; ++d) tokens += entries_[static_cast<size_t>(d)].size;
  return tokens;
}

int64_t TokenStore::trained_tokens(int64_t first, int64_t last) const {
  int64_t tokens = 0;
  for (int64_t d = first; d < last; ++d) tokens += std::ranges::count(document(d).trained, uint8_t{1});
  return tokens;
}

int64_t TokenStore::longest_document() const {
  int64_t longest = 0;
  for (const Entry& entry : entries_) longest = std::max(longest, entry.size);
  return longest;
}

void TokenStore::add_entry(const Entry& entry) {
  entries_.push_back(entry);
  tokens_ += entry.size;
}

void TokenStore::add_document(std::span<const int32_t> ids, std::span<const uint8_t> trained, float weight,
                              std::optional<Origin> origin) {
  require(ids.size() == trained.size() && !ids.empty(), "a document has tokens, and a mask for each");
  std::vector<uint8_t> marks(trained.size());  // nothing precedes the first token
  for (size_t i = 1; i < trained.size(); ++i) marks[i] = trained[i] != 0 ? 1 : 0;
  add_entry({columns_->tokens(), static_cast<int64_t>(ids.size()), weight, origin.value_or(Origin{documents(), 0})});
  columns_->append(ids, marks);
}

TokenStore TokenStore::with_documents(std::span<const int64_t> ordinals) const {
  TokenStore some;
  some.columns_ = columns_;
  for (const int64_t d : ordinals) some.add_entry(entries_[static_cast<size_t>(d)]);
  return some;
}

void TokenStore::set_repeats(std::vector<double> repeats) {
  repeats_ = std::move(repeats);
  if (std::ranges::all_of(repeats_, [](double repeat) { return repeat == 1; })) repeats_.clear();
}

void TokenStore::make_rows(bool packing, int64_t max_length) {
  if (!packing) {
    row_begin_.resize(static_cast<size_t>(documents()) + 1);
    for (size_t i = 0; i < row_begin_.size(); ++i) row_begin_[i] = static_cast<int64_t>(i);
    return;
  }
  // First fit over a window of open rows; documents are then put in their order.
  constexpr size_t kOpenRows = 64;
  struct Open {
    size_t row;
    int64_t used;
  };
  std::vector<std::vector<int64_t>> packed;
  std::vector<Open> open;
  for (int64_t d = 0; d < documents(); ++d) {
    const Entry& entry = entries_[static_cast<size_t>(d)];
    if (!repeats_.empty() && d > 0 && entry.origin.source != entries_[static_cast<size_t>(d - 1)].origin.source)
      open.clear();
    const int64_t length = entry.size;
    auto fits = std::find_if(open.begin(), open.end(), [&](const Open& o) { return o.used + length <= max_length; });
    if (fits == open.end()) {
      if (open.size() == kOpenRows)
        open.erase(
            std::max_element(open.begin(), open.end(), [](const Open& a, const Open& b) { return a.used < b.used; }));
      open.push_back({packed.size(), 0});
      packed.emplace_back();
      fits = open.end() - 1;
    }
    packed[fits->row].push_back(d);
    fits->used += length;
  }
  std::vector<Entry> ordered;
  row_begin_ = {0};
  for (const std::vector<int64_t>& row : packed) {
    for (const int64_t d : row) ordered.push_back(entries_[static_cast<size_t>(d)]);
    row_begin_.push_back(static_cast<int64_t>(ordered.size()));
  }
  entries_ = std::move(ordered);
}

void TokenStore::write_tokens(hdf5::File& file) const {
  Column<int32_t> ids(file, "ids", tokens_);
  Column<uint8_t> trained(file, "trained", tokens_);
  each_document([&](const Document& document) {
    ids.add(document.ids);
    trained.add(document.trained);
  });
  ids.flush();
  trained.flush();
}

void TokenStore::write_documents(hdf5::File& file) const {
  std::vector<int64_t> begin = {0}, rows;
  std::vector<int32_t> sources;
  std::vector<float> weights;
  for (const Entry& entry : entries_) {
    begin.push_back(begin.back() + entry.size);
    weights.push_back(entry.weight);
    rows.push_back(entry.origin.row);
    sources.push_back(entry.origin.source);
  }
  file.write("document_begin", begin);
  file.write("weights", weights);
  file.write("origin_rows", rows);
  file.write("origin_sources", sources);
}

void TokenStore::save(const fs::path& path) const {
  const fs::path temporary = path.string() + ".tmp";
  try {
    hdf5::File file = hdf5::File::create(temporary);
    file.set_attribute("/", "version", kVersion);
    file.set_attribute("/", "identity", identity_);
    file.set_attribute("/", "formats", formats_);
    file.set_attribute("/", "notes", notes_);
    write_tokens(file);
    write_documents(file);
    file.write("row_begin", row_begin_);
    if (!repeats_.empty()) file.write("repeats", repeats_);
    file.close();
    seal(temporary);
    sync_file(temporary);
    rename_durably(temporary, path);
  } catch (const Error&) {
    std::error_code ignored;
    fs::remove(temporary, ignored);
    throw;
  }
}

TokenStore TokenStore::open(const fs::path& path) {
  const auto broken = [&](const char* what) {
    fail(Fault::bad_data, "{}: the token store is not whole ({}); delete it and it is made again", path.string(), what);
  };
  MappedFile mapped(path);
  if (!sealed(mapped)) broken("its bytes do not have the SHA-256 that it ends with");
  const hdf5::File file = hdf5::File::open(path);
  if (!file.has_attribute("/", "version") || file.i64_attribute("/", "version") != kVersion) {
    fail(Fault::bad_data,
         "{}: the token store was made by another version of Drover; `drover prepare RECIPE` makes it again",
         path.string());
  }
  TokenStore s;
  s.identity_ = file.string_attribute("/", "identity");
  s.formats_ = file.string_attribute("/", "formats");
  s.notes_ = file.string_attribute("/", "notes");
  const int64_t tokens = file.shape("ids").size();
  const auto begin = file.read<int64_t>("document_begin"), rows = file.read<int64_t>("origin_rows");
  const auto weights = file.read<float>("weights");
  const auto sources = file.read<int32_t>("origin_sources");
  if (file.has("repeats")) s.repeats_ = file.read<double>("repeats");
  s.row_begin_ = file.read<int64_t>("row_begin");
  const auto offsets_fit = [](const std::vector<int64_t>& o, size_t end) {
    return o.size() > 1 && o.front() == 0 && o.back() == static_cast<int64_t>(end) &&
           std::adjacent_find(o.begin(), o.end(), std::greater_equal<>()) == o.end();
  };
  if (file.shape("trained").size() != tokens) broken("ids and mask differ in length");
  if (!offsets_fit(begin, static_cast<size_t>(tokens)) || weights.size() + 1 != begin.size())
    broken("document offsets");
  if (!offsets_fit(s.row_begin_, weights.size())) broken("row offsets");
  if (rows.size() != weights.size() || sources.size() != weights.size()) broken("origins");
  const auto without_repeat = [&](int32_t source) {
    return source < 0 || (!s.repeats_.empty() && source >= static_cast<int32_t>(s.repeats_.size()));
  };
  if (std::ranges::any_of(sources, without_repeat)) broken("sources");
  for (size_t d = 0; d < weights.size(); ++d)
    s.add_entry({begin[d], begin[d + 1] - begin[d], weights[d], {rows[d], sources[d]}});
  const size_t ids_at = file.bytes_at("ids", hdf5::Type::i32), trained_at = file.bytes_at("trained", hdf5::Type::u8);
  const auto end = static_cast<size_t>(tokens);  // of `trained`; `ids` has four times as many bytes
  if (mapped.bytes().size() < std::max(ids_at + 4 * end, trained_at + end)) broken("it changed while it was opened");
  s.columns_ = std::make_shared<TokenColumns>(std::move(mapped), ids_at, trained_at, tokens);
  return s;
}

bool TokenStore::matches(const fs::path& path, const std::string& identity) {
  if (!fs::exists(path)) return false;
  try {
    return TokenStore::open(path).identity() == identity;
  } catch (const Error&) {
    return false;
  }
}

}  // namespace drover
