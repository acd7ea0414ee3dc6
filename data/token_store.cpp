#include "data/token_store.h"

#include <algorithm>
#include <functional>

#include "kernels/base/append_file.h"
#include "kernels/base/hash.h"
#include "kernels/base/hdf5.h"

namespace drover {

namespace {

constexpr int64_t kVersion = 3;

// "\nsha256 " and 64 digits at the end of the file, which HDF5 passes over.
constexpr std::string_view kSealMark = "\nsha256 ";
constexpr size_t kSealBytes = kSealMark.size() + 64;

void seal(const fs::path& path) {
  const std::string mark = std::string(kSealMark) + sha256_file(path);
  AppendFile(path, AppendFile::Begin::keep).write(mark);
}

bool sealed(const fs::path& path) {
  const MappedFile file(path);
  const std::string_view bytes(reinterpret_cast<const char*>(file.bytes().data()), file.bytes().size());
  if (bytes.size() < kSealBytes) return false;
  const std::string_view body = bytes.substr(0, bytes.size() - kSealBytes), mark = bytes.substr(body.size());
  return mark.starts_with(kSealMark) && mark.substr(kSealMark.size()) == sha256_hex(body);
}

}  // namespace

Document TokenStore::document(int64_t ordinal) const {
  const size_t d = static_cast<size_t>(ordinal), begin = static_cast<size_t>(document_begin_[d]),
               size = static_cast<size_t>(document_begin_[d + 1]) - begin;
  return {std::span(ids_).subspan(begin, size),
          std::span(trained_).subspan(begin, size),
          weights_[d],
          ordinal,
          {origin_rows_[d], origin_sources_[d]}};
}

int64_t TokenStore::row_tokens(int64_t index) const {
  const auto [first, last] = row(index);
  return document_begin_[static_cast<size_t>(last)] - document_begin_[static_cast<size_t>(first)];
}

int64_t TokenStore::trained_tokens(int64_t first, int64_t last) const {
  const auto begin = trained_.begin() + document_begin_[static_cast<size_t>(first)],
             end = trained_.begin() + document_begin_[static_cast<size_t>(last)];
  return std::count(begin, end, uint8_t{1});
}

int64_t TokenStore::longest_document() const {
  int64_t longest = 0;
  for (int64_t d = 0; d < documents(); ++d)
    longest = std::max(longest, document_begin_[static_cast<size_t>(d) + 1] - document_begin_[static_cast<size_t>(d)]);
  return longest;
}

void TokenStore::add_document(std::span<const int32_t> ids, std::span<const uint8_t> trained, float weight,
                              std::optional<Origin> origin) {
  const Origin from = origin.value_or(Origin{documents(), 0});
  require(ids.size() == trained.size() && !ids.empty(), "a document has tokens, and a mask for each");
  ids_.insert(ids_.end(), ids.begin(), ids.end());
  trained_.push_back(0);  // nothing precedes the first token
  for (size_t i = 1; i < trained.size(); ++i) trained_.push_back(trained[i] != 0 ? 1 : 0);
  document_begin_.push_back(static_cast<int64_t>(ids_.size()));
  weights_.push_back(weight);
  origin_rows_.push_back(from.row);
  origin_sources_.push_back(from.source);
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
  // First fit over a window of open rows; documents then move so that a row's lie together.
  constexpr size_t kOpenRows = 64;
  struct Open {
    size_t row;
    int64_t used;
  };
  std::vector<std::vector<int64_t>> packed;
  std::vector<Open> open;
  for (int64_t d = 0; d < documents(); ++d) {
    if (!repeats_.empty() && d > 0 && document(d).origin.source != document(d - 1).origin.source) open.clear();
    const int64_t length = static_cast<int64_t>(document(d).ids.size());
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
  TokenStore ordered;
  for (const std::vector<int64_t>& row : packed) {
    for (int64_t d : row) {
      const Document doc = document(d);
      ordered.add_document(doc.ids, doc.trained, doc.weight, doc.origin);
    }
    ordered.row_begin_.push_back(ordered.documents());
  }
  ordered.identity_ = identity_;
  ordered.repeats_ = repeats_;
  ordered.set_notes(formats_, notes_);
  *this = std::move(ordered);
}

void TokenStore::save(const fs::path& path) const {
  const fs::path temporary = path.string() + ".tmp";
  try {
    hdf5::File file = hdf5::File::create(temporary);
    file.set_attribute("/", "version", kVersion);
    file.set_attribute("/", "identity", identity_);
    file.set_attribute("/", "formats", formats_);
    file.set_attribute("/", "notes", notes_);
    file.write("ids", ids_);
    file.write("trained", trained_);
    file.write("document_begin", document_begin_);
    file.write("weights", weights_);
    file.write("origin_rows", origin_rows_);
    file.write("origin_sources", origin_sources_);
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
  if (!sealed(path)) broken("its bytes do not have the SHA-256 that it ends with");
  const hdf5::File file = hdf5::File::open(path);
  if (!file.has_attribute("/", "version") || file.i64_attribute("/", "version") != kVersion) broken("another version");
  TokenStore s;
  s.identity_ = file.string_attribute("/", "identity");
  s.ids_ = file.read<int32_t>("ids");
  s.trained_ = file.read<uint8_t>("trained");
  s.document_begin_ = file.read<int64_t>("document_begin");
  s.formats_ = file.string_attribute("/", "formats");
  s.notes_ = file.string_attribute("/", "notes");
  s.weights_ = file.read<float>("weights");
  s.origin_rows_ = file.read<int64_t>("origin_rows");
  s.origin_sources_ = file.read<int32_t>("origin_sources");
  if (file.has("repeats")) s.repeats_ = file.read<double>("repeats");
  s.row_begin_ = file.read<int64_t>("row_begin");
  const auto offsets_fit = [](const std::vector<int64_t>& o, size_t end) {
    return o.size() > 1 && o.front() == 0 && o.back() == static_cast<int64_t>(end) &&
           std::adjacent_find(o.begin(), o.end(), std::greater_equal<>()) == o.end();
  };
  if (s.ids_.size() != s.trained_.size()) broken("ids and mask differ in length");
  if (!offsets_fit(s.document_begin_, s.ids_.size()) || s.weights_.size() + 1 != s.document_begin_.size())
    broken("document offsets");
  if (!offsets_fit(s.row_begin_, s.weights_.size())) broken("row offsets");
  if (s.origin_rows_.size() != s.weights_.size() || s.origin_sources_.size() != s.weights_.size()) broken("origins");
  const auto without_repeat = [&](int32_t source) {
    return source < 0 || (!s.repeats_.empty() && source >= static_cast<int32_t>(s.repeats_.size()));
  };
  if (std::ranges::any_of(s.origin_sources_, without_repeat)) broken("sources");
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
