// HDF5 files of our own making, through the serial C library: tables of numbers, with checksums where they lie in
// chunks, and attributes.
// A file is verified by its hash before it is opened; still, nothing but plain datasets of the expected type and size
// is read: no links out of the file, no external or virtual storage, no filters but shuffle, deflate and Fletcher32.
// Errors name the file and the dataset: missing_input absent, bad_data not what it should be, io a write that failed.
// Calls are serialised by one lock.
#pragma once
#include <cstdint>
#include <filesystem>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "kernels/base/error.h"

namespace drover::hdf5 {

enum class Type : uint8_t { i32, i64, u8, f32, f64 };

template <typename T>
constexpr Type type_of() {
  if constexpr (std::is_same_v<T, int32_t>) return Type::i32;
  if constexpr (std::is_same_v<T, int64_t>) return Type::i64;
  if constexpr (std::is_same_v<T, uint8_t>) return Type::u8;
  if constexpr (std::is_same_v<T, float>) return Type::f32;
  if constexpr (std::is_same_v<T, double>) return Type::f64;
}

// chunked: with Fletcher32. contiguous: in one piece, which may be mapped (bytes_at).
enum class Layout : uint8_t { chunked, contiguous };

// A vector of `rows` (cols 0), or a matrix of rows × cols.
struct Shape {
  int64_t rows = 0;
  int64_t cols = 0;
  int64_t row_elements() const { return cols == 0 ? 1 : cols; }
  int64_t size() const { return rows * row_elements(); }
  bool operator==(const Shape&) const = default;
};

// Names are paths inside the file ("state/parameters"); writing creates the groups on the way.
class File {
 public:
  static File create(const std::filesystem::path& path);  // truncates what is there
  static File open(const std::filesystem::path& path);    // read-only
  ~File();
  File(File&& other) noexcept;
  File(const File&) = delete;
  File& operator=(const File&) = delete;

  const std::filesystem::path& path() const { return path_; }
  void close();  // flushes; a full disk may show only here. The destructor closes without a word.

  bool has(std::string_view name) const;
  void make_group(std::string_view name);

  void create_dataset(std::string_view name, Type type, Shape shape, Layout layout = Layout::chunked);
  Type type(std::string_view name) const;
  Shape shape(std::string_view name) const;
  // Where in the file the bytes of a contiguous dataset of this type begin, at a multiple of an element's size.
  size_t bytes_at(std::string_view name, Type type) const;
  // Rows [begin, begin + count) ↔ contiguous host rows of `type`, which must be the dataset's own.
  void write_rows(std::string_view name, Type type, int64_t begin, int64_t count, const void* from);
  void read_rows(std::string_view name, Type type, int64_t begin, int64_t count, void* to) const;

  template <typename T>
  void write(std::string_view name, std::span<const T> values, int64_t cols = 0) {
    require(cols == 0 || static_cast<int64_t>(values.size()) % cols == 0, "values fill whole rows");
    const Shape shape{static_cast<int64_t>(values.size()) / (cols == 0 ? 1 : cols), cols};
    create_dataset(name, type_of<T>(), shape);
    write_rows(name, type_of<T>(), 0, shape.rows, values.data());
  }
  template <typename T>
  void write(std::string_view name, const std::vector<T>& values, int64_t cols = 0) {
    write(name, std::span<const T>(values), cols);
  }
  template <typename T>
  std::vector<T> read_rows(std::string_view name, int64_t begin, int64_t count) const {
    check_range(name, begin, count);
    std::vector<T> values(static_cast<size_t>(count * shape(name).row_elements()));
    read_rows(name, type_of<T>(), begin, count, values.data());
    return values;
  }
  template <typename T>
  std::vector<T> read(std::string_view name) const {
    return read_rows<T>(name, 0, shape(name).rows);
  }

  // Attributes of a group or dataset; "/" is the file itself. An attribute that exists is replaced.
  void set_attribute(std::string_view object, const std::string& name, std::string_view value);
  void set_attribute(std::string_view object, const std::string& name, int64_t value);
  bool has_attribute(std::string_view object, const std::string& name) const;
  std::string string_attribute(std::string_view object, const std::string& name) const;
  int64_t i64_attribute(std::string_view object, const std::string& name) const;

 private:
  File(std::filesystem::path path, int64_t handle, bool writing);
  void check_range(std::string_view name, int64_t begin, int64_t count) const;
  std::filesystem::path path_;
  int64_t handle_ = -1;
  bool writing_ = false;
};

std::string library_version();  // "1.10.8"

}  // namespace drover::hdf5
