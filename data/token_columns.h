// The tokens of documents, one after the other, and for each whether it is trained: in memory, in a temporary file
// while a store is made, or where the store's file has them. What lies in a file is mapped, and of what was read no
// more than a bounded part stays in the process.
#pragma once
#include <atomic>
#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <vector>

#include "kernels/base/file.h"
#include "kernels/base/spill_file.h"

namespace drover {

class TokenColumns {
 public:
  TokenColumns() = default;
  explicit TokenColumns(const fs::path& directory);  // of the temporary file
  // In the file, from these bytes on, of which the first is a multiple of 4.
  TokenColumns(MappedFile file, size_t ids_at, size_t trained_at, int64_t tokens);

  struct Part {
    std::span<const int32_t> ids;
    std::span<const uint8_t> trained;
  };
  int64_t tokens() const { return tokens_; }
  void append(std::span<const int32_t> ids, std::span<const uint8_t> trained);  // not of a store's file
  Part part(int64_t begin, int64_t count) const;                                // until the next append

 private:
  struct Spilled {
    SpillFile ids, trained;
  };
  Part all() const;
  void advise_done() const;
  int64_t tokens_ = 0;
  std::vector<int32_t> ids_;
  std::vector<uint8_t> trained_;
  std::unique_ptr<Spilled> spilled_;
  std::optional<MappedFile> file_;
  size_t ids_at_ = 0, trained_at_ = 0;
  mutable std::atomic<int64_t> read_ = 0;  // tokens since pages were last let go
};

}  // namespace drover
