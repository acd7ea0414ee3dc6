// Files and their datasets.
#include "kernels/base/hdf5.h"

#include <algorithm>
#include <utility>

#include "kernels/base/hdf5_library.h"

namespace drover::hdf5 {

namespace fs = std::filesystem;

namespace {

static_assert(sizeof(hid_t) == sizeof(int64_t));

constexpr int64_t kChunkBytes = 256 << 10;   // a quarter of the library's chunk cache
constexpr int64_t kTransferBytes = 1 << 30;  // per call of the library
constexpr int64_t kDeflateRatio = 1032;      // the most that deflate can shrink

hid_t native(Type type) {
  switch (type) {
    case Type::i32: return H5T_NATIVE_INT32;
    case Type::i64: return H5T_NATIVE_INT64;
    case Type::u8: return H5T_NATIVE_UINT8;
    case Type::f32: return H5T_NATIVE_FLOAT;
    case Type::f64: return H5T_NATIVE_DOUBLE;
  }
  return -1;
}

const char* name_of(Type type) {
  constexpr const char* names[] = {"i32", "i64", "u8", "f32", "f64"};
  return names[static_cast<int>(type)];
}

int64_t bytes_of(Type type) { return type == Type::u8 ? 1 : type == Type::i32 || type == Type::f32 ? 4 : 8; }

struct Dataset {
  Handle id;
  Type type;
  Shape shape;
};

Type stored_type(hid_t dataset, const fs::path& path, std::string_view name) {
  const Handle type(H5Dget_type(dataset), H5Tclose);
  for (Type candidate : {Type::i32, Type::i64, Type::u8, Type::f32, Type::f64}) {
    if (type.valid() && H5Tequal(type, native(candidate)) > 0) return candidate;
  }
  fail(Fault::bad_data, "{}: dataset '{}' has an element type other than i32, i64, u8, f32 or f64 of this machine",
       path.string(), name);
}

Shape stored_shape(hid_t dataset, const fs::path& path, std::string_view name) {
  const Handle space(H5Dget_space(dataset), H5Sclose);
  const int rank = space.valid() ? H5Sget_simple_extent_ndims(space) : -1;
  hsize_t extent[2] = {0, 0};
  constexpr hsize_t kMost = hsize_t{1} << 40;
  if ((rank != 1 && rank != 2) || H5Sget_simple_extent_dims(space, extent, nullptr) < 0 || extent[0] > kMost ||
      extent[1] > kMost || (rank == 2 && extent[1] == 0) || (extent[1] > 0 && extent[0] > kMost / extent[1])) {
    fail(Fault::bad_data, "{}: dataset '{}' must have one or two dimensions and at most 2^40 elements", path.string(),
         name);
  }
  return {static_cast<int64_t>(extent[0]), static_cast<int64_t>(extent[1])};
}

// The bytes on disk must be those that shape and type ask for: a small file must not declare a huge array.
void check_storage(hid_t dataset, Type type, Shape shape, const fs::path& path, std::string_view name) {
  const auto refuse = [&](std::string_view what) {
    H5Eclear2(H5E_DEFAULT);
    fail(Fault::bad_data, "{}: dataset '{}' {}; such a file was not written by this program", path.string(), name,
         what);
  };
  const Handle plan(H5Dget_create_plist(dataset), H5Pclose);
  if (!plan.valid()) refuse("has no creation properties");
  if (H5Pget_external_count(plan) != 0) refuse("keeps its data in another file");
  const H5D_layout_t layout = H5Pget_layout(plan);
  if (layout != H5D_CONTIGUOUS && layout != H5D_CHUNKED && layout != H5D_COMPACT) refuse("has a virtual layout");

  bool deflate = false, checksum = false;
  const int filters = H5Pget_nfilters(plan);
  for (int i = 0; i < filters; ++i) {
    unsigned flags = 0, config = 0;
    size_t values = 0;
    const H5Z_filter_t filter =
        H5Pget_filter2(plan, static_cast<unsigned>(i), &flags, &values, nullptr, 0, nullptr, &config);
    if (filter != H5Z_FILTER_SHUFFLE && filter != H5Z_FILTER_DEFLATE && filter != H5Z_FILTER_FLETCHER32) {
      refuse("uses a filter other than shuffle, deflate and Fletcher32");
    }
    deflate |= filter == H5Z_FILTER_DEFLATE;
    checksum |= filter == H5Z_FILTER_FLETCHER32;
  }

  const int64_t stored = static_cast<int64_t>(H5Dget_storage_size(dataset));
  int64_t expected = shape.size() * bytes_of(type);
  if (layout == H5D_CHUNKED) {
    hsize_t chunk[2] = {1, 1};
    if (H5Pget_chunk(plan, 2, chunk) < 1) refuse("has broken chunks");
    const int64_t rows = static_cast<int64_t>(chunk[0]), cols = static_cast<int64_t>(chunk[1]);
    if (rows < 1 || cols < 1 || rows > (int64_t{1} << 32) || cols > (int64_t{1} << 32) / rows)
      refuse("has broken chunks");
    const int64_t chunks = (shape.rows + rows - 1) / rows * ((shape.row_elements() + cols - 1) / cols);
    expected = chunks * (rows * cols * bytes_of(type) + (checksum ? 4 : 0));
  }
  if (deflate ? stored < expected / kDeflateRatio : stored != expected) {
    refuse(fmt::format("holds {} bytes where its shape asks for {}", stored, expected));
  }
}

Dataset open_dataset(hid_t file, std::string_view name, const fs::path& path, bool writing) {
  require(file >= 0, "the HDF5 file is open");
  if (!reachable(file, name, path)) fail(Fault::bad_data, "{} has no dataset '{}'", path.string(), name);
  Handle id(H5Dopen2(file, std::string(name).c_str(), H5P_DEFAULT), H5Dclose);
  if (!id.valid()) fail_in(Fault::bad_data, "open", path, name);
  const Type type = stored_type(id, path, name);
  const Shape shape = stored_shape(id, path, name);
  if (!writing) check_storage(id, type, shape, path, name);  // while writing, chunks are still on their way
  return {std::move(id), type, shape};
}

void check_rows(const Shape& shape, int64_t begin, int64_t count, std::string_view name, const fs::path& path) {
  if (begin >= 0 && count >= 0 && begin <= shape.rows && count <= shape.rows - begin) return;
  fail(Fault::bad_data, "{}: rows {} to {} of dataset '{}' are asked for, which has {}", path.string(), begin,
       begin + count, name, shape.rows);
}

// Calls move(memory space, file space, offset in elements) for pieces of rows that the library can take at once.
template <typename Move>
void by_pieces(const Dataset& dataset, int64_t begin, int64_t count, Move&& move) {
  const int64_t row_bytes = dataset.shape.row_elements() * bytes_of(dataset.type);
  const int64_t most = std::max<int64_t>(1, kTransferBytes / row_bytes);
  const int rank = dataset.shape.cols == 0 ? 1 : 2;
  for (int64_t done = 0; done < count; done += most) {
    const hsize_t start[2] = {static_cast<hsize_t>(begin + done), 0};
    const hsize_t extent[2] = {static_cast<hsize_t>(std::min(most, count - done)),
                               static_cast<hsize_t>(dataset.shape.cols)};
    const Handle memory(H5Screate_simple(rank, extent, nullptr), H5Sclose);
    const Handle space(H5Dget_space(dataset.id), H5Sclose);
    require(memory.valid() && space.valid() &&
                H5Sselect_hyperslab(space, H5S_SELECT_SET, start, nullptr, extent, nullptr) >= 0,
            "a range of rows can be selected");
    move(memory, space, done * row_bytes);
  }
}

}  // namespace

File::File(fs::path path, int64_t handle, bool writing) : path_(std::move(path)), handle_(handle), writing_(writing) {}

File File::create(const fs::path& path) {
  const Lock lock(library());
  const Handle access(H5Pcreate(H5P_FILE_ACCESS), H5Pclose);
  H5Pset_alignment(access, 1, 8);  // so that what is mapped lies as its type wants it
  const hid_t file = H5Fcreate(path.c_str(), H5F_ACC_TRUNC, H5P_DEFAULT, access);
  if (file < 0) fail_in(Fault::io, "create", path, "");
  return File(path, file, true);
}

File File::open(const fs::path& path) {
  const Lock lock(library());
  std::error_code error;
  if (!fs::exists(path, error)) fail(Fault::missing_input, "cannot open {}: it does not exist", path.string());
  const hid_t file = H5Fopen(path.c_str(), H5F_ACC_RDONLY, H5P_DEFAULT);
  if (file < 0) fail_in(Fault::bad_data, "open", path, "");
  return File(path, file, false);
}

File::~File() {
  const Lock lock(library());
  if (handle_ >= 0) H5Fclose(handle_);
  H5Eclear2(H5E_DEFAULT);
}

File::File(File&& other) noexcept
    : path_(std::move(other.path_)), handle_(std::exchange(other.handle_, -1)), writing_(other.writing_) {}

void File::close() {
  const Lock lock(library());
  if (handle_ < 0) return;
  const hid_t file = std::exchange(handle_, -1);
  if (writing_ && H5Fflush(file, H5F_SCOPE_LOCAL) < 0) {
    const std::string why = reason();
    H5Fclose(file);
    H5Eclear2(H5E_DEFAULT);
    fail(Fault::io, "cannot write {}: {}{}", path_.string(), why, room_at(path_));
  }
  if (H5Fclose(file) < 0) fail_in(writing_ ? Fault::io : Fault::bad_data, "close", path_, "");
}

bool File::has(std::string_view name) const {
  const Lock lock(library());
  require(handle_ >= 0, "the HDF5 file is open");
  return reachable(handle_, name, path_);
}

void File::make_group(std::string_view name) {
  const Lock lock(library());
  const Handle on_the_way(H5Pcreate(H5P_LINK_CREATE), H5Pclose);
  H5Pset_create_intermediate_group(on_the_way, 1);
  Handle group(H5Gcreate2(handle_, std::string(name).c_str(), on_the_way, H5P_DEFAULT, H5P_DEFAULT), H5Gclose);
  if (!group.valid() || !group.close()) fail_in(Fault::io, "create a group in", path_, name);
}

void File::create_dataset(std::string_view name, Type type, Shape shape, Layout layout) {
  const Lock lock(library());
  require(writing_ && handle_ >= 0, "the HDF5 file is open for writing");
  require(shape.rows >= 0 && shape.cols >= 0, "a dataset has sizes that are not negative");
  const int rank = shape.cols == 0 ? 1 : 2;
  const hsize_t extent[2] = {static_cast<hsize_t>(shape.rows), static_cast<hsize_t>(shape.cols)};
  const Handle space(H5Screate_simple(rank, extent, nullptr), H5Sclose);
  const Handle plan(H5Pcreate(H5P_DATASET_CREATE), H5Pclose);
  H5Pset_obj_track_times(plan, false);  // the same data is the same file
  if (layout == Layout::contiguous) {
    H5Pset_alloc_time(plan, H5D_ALLOC_TIME_EARLY);
    H5Pset_fill_time(plan, H5D_FILL_TIME_NEVER);
  } else if (shape.rows > 0) {
    const int64_t elements = kChunkBytes / bytes_of(type);
    const int64_t cols = std::min(shape.row_elements(), elements);
    const hsize_t chunk[2] = {static_cast<hsize_t>(std::clamp<int64_t>(elements / cols, 1, shape.rows)),
                              static_cast<hsize_t>(cols)};
    H5Pset_chunk(plan, rank, chunk);
    H5Pset_fletcher32(plan);
  }
  const Handle on_the_way(H5Pcreate(H5P_LINK_CREATE), H5Pclose);
  H5Pset_create_intermediate_group(on_the_way, 1);
  Handle dataset(H5Dcreate2(handle_, std::string(name).c_str(), native(type), space, on_the_way, plan, H5P_DEFAULT),
                 H5Dclose);
  if (!dataset.valid() || !dataset.close()) fail_in(Fault::io, "create a dataset in", path_, name);
}

Type File::type(std::string_view name) const {
  const Lock lock(library());
  return open_dataset(handle_, name, path_, writing_).type;
}

Shape File::shape(std::string_view name) const {
  const Lock lock(library());
  return open_dataset(handle_, name, path_, writing_).shape;
}

size_t File::bytes_at(std::string_view name, Type type) const {
  const Lock lock(library());
  const Dataset dataset = open_dataset(handle_, name, path_, writing_);
  const haddr_t at = H5Dget_offset(dataset.id);
  if (dataset.type != type || at == HADDR_UNDEF || at % static_cast<haddr_t>(bytes_of(type)) != 0) {
    H5Eclear2(H5E_DEFAULT);
    fail(Fault::bad_data, "{}: dataset '{}' is not one piece of {}", path_.string(), name, name_of(type));
  }
  return static_cast<size_t>(at);
}

void File::check_range(std::string_view name, int64_t begin, int64_t count) const {
  check_rows(shape(name), begin, count, name, path_);
}

void File::write_rows(std::string_view name, Type type, int64_t begin, int64_t count, const void* from) {
  const Lock lock(library());
  require(writing_, "the HDF5 file is open for writing");
  Dataset dataset = open_dataset(handle_, name, path_, true);
  require(dataset.type == type, "a dataset is written with the type that it was created with");
  check_rows(dataset.shape, begin, count, name, path_);
  by_pieces(dataset, begin, count, [&](hid_t memory, hid_t space, int64_t offset) {
    if (H5Dwrite(dataset.id, native(type), memory, space, H5P_DEFAULT, static_cast<const char*>(from) + offset) < 0) {
      fail_in(Fault::io, "write", path_, name);
    }
  });
  if (!dataset.id.close()) fail_in(Fault::io, "write", path_, name);
}

void File::read_rows(std::string_view name, Type type, int64_t begin, int64_t count, void* to) const {
  const Lock lock(library());
  const Dataset dataset = open_dataset(handle_, name, path_, writing_);
  if (dataset.type != type) {
    fail(Fault::bad_data, "{}: dataset '{}' holds {} where {} is expected", path_.string(), name, name_of(dataset.type),
         name_of(type));
  }
  check_rows(dataset.shape, begin, count, name, path_);
  by_pieces(dataset, begin, count, [&](hid_t memory, hid_t space, int64_t offset) {
    if (H5Dread(dataset.id, native(type), memory, space, H5P_DEFAULT, static_cast<char*>(to) + offset) < 0) {
      fail_in(Fault::bad_data, "read", path_, name);
    }
  });
}

}  // namespace drover::hdf5
