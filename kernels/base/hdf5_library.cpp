#include "kernels/base/hdf5_library.h"

#include <algorithm>

#include "kernels/base/hdf5.h"

namespace drover::hdf5 {

namespace fs = std::filesystem;

std::string reason() {
  constexpr std::string_view kQuotes = "error message = '";
  std::string text;
  H5Ewalk2(
      H5E_DEFAULT, H5E_WALK_UPWARD,
      [](unsigned, const H5E_error2_t* entry, void* out) -> herr_t {
        std::string& words = *static_cast<std::string*>(out);
        if (words.empty() && entry->desc != nullptr) words = entry->desc;
        return 0;
      },
      &text);
  H5Eclear2(H5E_DEFAULT);
  if (const size_t quoted = text.find(kQuotes); quoted != std::string::npos) {
    const size_t begin = quoted + kQuotes.size();
    return text.substr(begin, text.find('\'', begin) - begin);
  }
  return text.empty() ? "no reason given" : text;
}

std::string room_at(const fs::path& path) {
  std::error_code error;
  const fs::space_info space = fs::space(path.has_parent_path() ? path.parent_path() : fs::path("."), error);
  return error ? std::string() : fmt::format("; {} bytes are free there", space.available);
}

std::recursive_mutex& library() {
  static std::recursive_mutex mutex;
  static const bool ready = [] {
    H5dont_atexit();  // a file that could not be flushed must not break the exit
    H5open();
    H5Eset_auto2(H5E_DEFAULT, nullptr, nullptr);
    H5PLset_loading_state(0);
    return true;
  }();
  (void)ready;
  return mutex;
}

void fail_in(Fault fault, const char* what, const fs::path& path, std::string_view name) {
  const std::string why = reason();
  const std::string where = name.empty() ? std::string() : fmt::format(", '{}'", name);
  fail(fault, "cannot {} {}{}: {}{}", what, path.string(), where, why, fault == Fault::io ? room_at(path) : "");
}

bool reachable(hid_t file, std::string_view name, const fs::path& path) {
  name.remove_prefix(std::min(name.find_first_not_of('/'), name.size()));
  require(!name.empty(), "an object in an HDF5 file has a name");
  for (size_t end = 0; end != std::string_view::npos;) {
    end = name.find('/', end + 1);
    const std::string prefix(name.substr(0, end));
    if (H5Lexists(file, prefix.c_str(), H5P_DEFAULT) <= 0) return false;
    H5L_info_t link{};
    if (H5Lget_info(file, prefix.c_str(), &link, H5P_DEFAULT) < 0) return false;
    if (link.type != H5L_TYPE_HARD) {
      fail(Fault::bad_data, "{}: '{}' is a soft or external link; only plain groups and datasets are read",
           path.string(), prefix);
    }
  }
  return true;
}

Handle open_object(hid_t file, std::string_view object, const fs::path& path) {
  require(file >= 0, "the HDF5 file is open");
  if (object != "/" && !reachable(file, object, path))
    fail(Fault::bad_data, "{} has no object '{}'", path.string(), object);
  Handle id(H5Oopen(file, std::string(object).c_str(), H5P_DEFAULT), H5Oclose);
  if (!id.valid()) fail_in(Fault::bad_data, "open", path, object);
  return id;
}

std::string library_version() {
  unsigned major = 0, minor = 0, release = 0;
  H5get_libversion(&major, &minor, &release);
  return fmt::format("{}.{}.{}", major, minor, release);
}

}  // namespace drover::hdf5
