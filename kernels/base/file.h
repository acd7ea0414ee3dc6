// Files that are either whole or absent: read-only maps, and writes that go to a temporary name, are fsynced and
// renamed.
#pragma once
#include <cstddef>
#include <filesystem>
#include <functional>
#include <optional>
#include <span>
#include <string>
#include <string_view>

namespace drover {

// How a Git LFS pointer begins, which stands in the place of a file that was not fetched.
inline constexpr std::string_view kLfsPointer = "version https://git-lfs.github.com/spec/";

namespace fs = std::filesystem;

std::string from_here(const fs::path& path);  // " (from DIRECTORY)", where a relative path starts; else nothing

std::string read_text(
    const fs::path& path,
    size_t limit_bytes = size_t{1} << 30);  // missing_input when absent, io when unreadable, bad_data when larger

// A read-only memory map. `advise_done` lets the kernel drop pages that were already consumed.
class MappedFile {
 public:
  explicit MappedFile(const fs::path& path);
  ~MappedFile();
  MappedFile(MappedFile&& other) noexcept;
  MappedFile(const MappedFile&) = delete;
  MappedFile& operator=(const MappedFile&) = delete;

  std::span<const std::byte> bytes() const { return {data_, size_}; }
  const fs::path& path() const { return path_; }
  void advise_done(size_t offset, size_t bytes) const;

 private:
  fs::path path_;
  const std::byte* data_ = nullptr;
  size_t size_ = 0;
};

// A new file that appears under its name only at `commit` (fsync, rename, fsync of the directory). Dropped without
// commit, it leaves nothing. A symbolic link stays one: its target is replaced. What is no regular file (a pipe, a
// terminal, a device) is written into as it is. Every failure is Fault::io with the path and the system's reason (free
// and needed bytes when the disk is full).
class AtomicFile {
 public:
  explicit AtomicFile(fs::path path);
  ~AtomicFile();
  AtomicFile(const AtomicFile&) = delete;
  AtomicFile& operator=(const AtomicFile&) = delete;
  void write(const void* data, size_t bytes);
  void write(std::string_view text) { write(text.data(), text.size()); }
  void commit();

 private:
  fs::path path_, temporary_;  // temporary_ is empty where path_ itself is written
  int descriptor_ = -1;
};

// flock(2) on a file, until it is destroyed or the process ends: readers share it, and whoever wants to remove what
// they read holds it alone. On a file system without locks everybody holds everything.
class FileHold {
 public:
  static FileHold shared(
      const fs::path& file);  // waits; io where the file vanishes meanwhile, missing_input where it was not there
  static std::optional<FileHold> alone_if_free(
      const fs::path& file);  // nothing where others hold it, or where it has vanished
  FileHold(FileHold&& other) noexcept;
  FileHold& operator=(FileHold&&) = delete;
  ~FileHold();

 private:
  explicit FileHold(int descriptor) : descriptor_(descriptor) {}
  int descriptor_;
};

bool same_file(const fs::path& a, const fs::path& b);  // both exist and are one file

void write_text(const fs::path& path, std::string_view text);  // through AtomicFile
void make_directories(const fs::path& path);                   // Fault::io with the reason
void sync_directory(const fs::path& path);
void sync_file(const fs::path& path);                           // fsync of an existing file
void rename_durably(const fs::path& from, const fs::path& to);  // rename, then fsync of the parent; Fault::io

}  // namespace drover
