// What the files of hdf5.h share of the C library: its lock, handles that close themselves, its words about a failure.
#pragma once
#include <hdf5.h>

#include <filesystem>
#include <mutex>
#include <string>
#include <string_view>
#include <utility>

#include "kernels/base/error.h"

namespace drover::hdf5 {

using Lock = std::lock_guard<std::recursive_mutex>;
std::recursive_mutex& library();  // ready to be used

class Handle {
 public:
  Handle(hid_t id, herr_t (*close)(hid_t)) : id_(id), close_(close) {}
  ~Handle() {
    if (id_ >= 0) close_(id_);
  }
  Handle(Handle&& other) noexcept : id_(std::exchange(other.id_, -1)), close_(other.close_) {}
  Handle(const Handle&) = delete;
  Handle& operator=(const Handle&) = delete;
  operator hid_t() const { return id_; }
  bool valid() const { return id_ >= 0; }
  // What is written may reach the file only now, and fail only now.
  bool close() { return close_(std::exchange(id_, -1)) >= 0; }

 private:
  hid_t id_;
  herr_t (*close_)(hid_t);
};

// The library's own first words about the last failure, or the system's where the library quotes them.
std::string reason();
std::string room_at(const std::filesystem::path& path);  // "; 5 bytes are free there"
// An error that names the file, the object where there is a name, and the library's reason.
[[noreturn]] void fail_in(Fault fault, const char* what, const std::filesystem::path& path, std::string_view name);

// True when every step of the path is a hard link: a soft or external link could lead out of the file.
bool reachable(hid_t file, std::string_view name, const std::filesystem::path& path);
Handle open_object(hid_t file, std::string_view object, const std::filesystem::path& path);

}  // namespace drover::hdf5
