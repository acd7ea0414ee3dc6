// The attributes of hdf5.h.
#include <algorithm>

#include "kernels/base/hdf5.h"
#include "kernels/base/hdf5_library.h"

namespace drover::hdf5 {

namespace fs = std::filesystem;

namespace {

constexpr size_t kAttributeBytes = 32 << 10;  // below the 64 KiB that an object header holds

Handle open_attribute(hid_t object, std::string_view where, const std::string& name, const fs::path& path) {
  if (H5Aexists(object, name.c_str()) <= 0)
    fail(Fault::bad_data, "{}: '{}' has no attribute '{}'", path.string(), where, name);
  Handle id(H5Aopen(object, name.c_str(), H5P_DEFAULT), H5Aclose);
  if (!id.valid()) fail_in(Fault::bad_data, "open an attribute of", path, where);
  return id;
}

void write_attribute(hid_t object, std::string_view where, const std::string& name, hid_t type, const void* value,
                     const fs::path& path) {
  if (H5Aexists(object, name.c_str()) > 0) H5Adelete(object, name.c_str());
  const Handle space(H5Screate(H5S_SCALAR), H5Sclose);
  Handle id(H5Acreate2(object, name.c_str(), type, space, H5P_DEFAULT, H5P_DEFAULT), H5Aclose);
  if (!id.valid() || H5Awrite(id, type, value) < 0 || !id.close())
    fail_in(Fault::io, "write an attribute to", path, where);
}

}  // namespace

void File::set_attribute(std::string_view object, const std::string& name, std::string_view value) {
  const Lock lock(library());
  require(value.size() <= kAttributeBytes, "a string attribute holds at most 32 KiB");
  const Handle id = open_object(handle_, object, path_);
  const Handle type(H5Tcopy(H5T_C_S1), H5Tclose);
  // One byte more than the text: a size of zero is not allowed, and the text may be empty.
  H5Tset_size(type, value.size() + 1);
  H5Tset_strpad(type, H5T_STR_NULLTERM);
  H5Tset_cset(type, H5T_CSET_UTF8);
  write_attribute(id, object, name, type, std::string(value).c_str(), path_);
}

void File::set_attribute(std::string_view object, const std::string& name, int64_t value) {
  const Lock lock(library());
  const Handle id = open_object(handle_, object, path_);
  write_attribute(id, object, name, H5T_NATIVE_INT64, &value, path_);
}

bool File::has_attribute(std::string_view object, const std::string& name) const {
  const Lock lock(library());
  return H5Aexists(open_object(handle_, object, path_), name.c_str()) > 0;
}

std::string File::string_attribute(std::string_view object, const std::string& name) const {
  const Lock lock(library());
  const Handle id = open_object(handle_, object, path_);
  const Handle attribute = open_attribute(id, object, name, path_);
  const Handle type(H5Aget_type(attribute), H5Tclose);
  const Handle space(H5Aget_space(attribute), H5Sclose);
  const size_t bytes = type.valid() ? H5Tget_size(type) : 0;
  if (bytes == 0 || bytes > kAttributeBytes + 1 || H5Tget_class(type) != H5T_STRING || H5Tis_variable_str(type) != 0 ||
      !space.valid() || H5Sget_simple_extent_npoints(space) != 1) {
    fail(Fault::bad_data, "{}: attribute '{}' of '{}' is not one string of fixed length", path_.string(), name, object);
  }
  std::string text(bytes, '\0');
  if (H5Aread(attribute, type, text.data()) < 0) fail_in(Fault::bad_data, "read an attribute of", path_, object);
  text.resize(std::min(text.find('\0'), text.size()));
  return text;
}

int64_t File::i64_attribute(std::string_view object, const std::string& name) const {
  const Lock lock(library());
  const Handle id = open_object(handle_, object, path_);
  const Handle attribute = open_attribute(id, object, name, path_);
  const Handle type(H5Aget_type(attribute), H5Tclose);
  const Handle space(H5Aget_space(attribute), H5Sclose);
  if (!type.valid() || H5Tequal(type, H5T_NATIVE_INT64) <= 0 || !space.valid() ||
      H5Sget_simple_extent_npoints(space) != 1) {
    fail(Fault::bad_data, "{}: attribute '{}' of '{}' is not one 64-bit integer", path_.string(), name, object);
  }
  int64_t value = 0;
  if (H5Aread(attribute, H5T_NATIVE_INT64, &value) < 0) fail_in(Fault::bad_data, "read an attribute of", path_, object);
  return value;
}

}  // namespace drover::hdf5
