#include "data/token_columns.h"

#include "kernels/base/require.h"

namespace drover {

namespace {

constexpr int64_t kReadTokens = int64_t{1} << 20;  // that stay in the process
constexpr int64_t kAroundTokens = 26000;  // that come with a part: a fault maps up to 64 KiB of each of its two pieces

}  // namespace

TokenColumns::TokenColumns(const fs::path& directory)
    : spilled_(new Spilled{SpillFile(directory), SpillFile(directory)}) {}

TokenColumns::TokenColumns(MappedFile file, size_t ids_at, size_t trained_at, int64_t tokens)
    : tokens_(tokens), file_(std::move(file)), ids_at_(ids_at), trained_at_(trained_at) {
  const auto fits = [&](size_t at, size_t size) {
    return at <= file_->bytes().size() && static_cast<size_t>(tokens) <= (file_->bytes().size() - at) / size;
  };
  require(ids_at % sizeof(int32_t) == 0 && fits(ids_at, sizeof(int32_t)) && fits(trained_at, 1),
          "columns of tokens lie in their file");
}

void TokenColumns::append(std::span<const int32_t> ids, std::span<const uint8_t> trained) {
  require(!file_ && ids.size() == trained.size(), "columns grow by as many ids as marks, before they are a store's");
  tokens_ += static_cast<int64_t>(ids.size());
  if (spilled_) {
    spilled_->ids.write(ids.data(), ids.size_bytes());
    spilled_->trained.write(trained.data(), trained.size_bytes());
  } else {
    ids_.insert(ids_.end(), ids.begin(), ids.end());
    trained_.insert(trained_.end(), trained.begin(), trained.end());
  }
}

TokenColumns::Part TokenColumns::all() const {
  const auto count = static_cast<size_t>(tokens_);
  const auto at = [&](std::span<const std::byte> ids, std::span<const std::byte> trained) {
    return Part{{reinterpret_cast<const int32_t*>(ids.data()), count},
                {reinterpret_cast<const uint8_t*>(trained.data()), count}};
  };
  if (file_) return at(file_->bytes().subspan(ids_at_), file_->bytes().subspan(trained_at_));
  if (spilled_) return at(spilled_->ids.bytes(), spilled_->trained.bytes());
  return {ids_, trained_};
}

void TokenColumns::advise_done() const {
  if (file_) file_->advise_done(0, file_->bytes().size());
  if (!spilled_) return;
  spilled_->ids.advise_done();
  spilled_->trained.advise_done();
}

TokenColumns::Part TokenColumns::part(int64_t begin, int64_t count) const {
  require(begin >= 0 && count >= 0 && count <= tokens_ - begin, "a part of the tokens is there");
  if (read_.fetch_add(count + kAroundTokens) > kReadTokens) {
    read_ = 0;
    advise_done();
  }
  const Part whole = all();
  return {whole.ids.subspan(static_cast<size_t>(begin), static_cast<size_t>(count)),
          whole.trained.subspan(static_cast<size_t>(begin), static_cast<size_t>(count))};
}

}  // namespace drover
