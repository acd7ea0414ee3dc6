#include "kernels/base/hdf5.h"

#include <hdf5.h>

#include <cstring>
#include <numeric>

#include "kernels/base/file.h"
#include "tests/base/scratch_directory.h"
#include "tests/base/small_files.h"

namespace drover {
namespace {

using hdf5::File;
using hdf5::Shape;

template <typename T>
std::vector<T> counted(size_t n) {
  std::vector<T> v(n);
  std::iota(v.begin(), v.end(), T(1));
  return v;
}

// Damages a finished file the way only a foreign writer could.
template <typename Edit>
void edit(const fs::path& path, Edit&& change) {
  const hid_t file = H5Fopen(path.c_str(), H5F_ACC_RDWR, H5P_DEFAULT);
  ASSERT_GE(file, 0);
  change(file);
  H5Fclose(file);
}

hid_t plain(hid_t file, const char* name, hsize_t rows, hid_t plan, hid_t type = H5T_NATIVE_FLOAT) {
  const hid_t space = H5Screate_simple(1, &rows, nullptr);
  const hid_t dataset = H5Dcreate2(file, name, type, space, H5P_DEFAULT, plan, H5P_DEFAULT);
  H5Sclose(space);
  return dataset;
}

TEST(Hdf5, EveryTypeAndShapeComesBack) {
  ScratchDirectory dir;
  const auto floats = counted<float>(300 * 1000);
  {
    File file = File::create(dir / "a.h5");
    file.write("state/moment", floats, 1000);
    file.write("ids", counted<int32_t>(100001));
    file.write("offsets", counted<int64_t>(7));
    file.write("mask", counted<uint8_t>(9), 3);
    file.write("norms", counted<double>(5));
    file.write("wide", counted<float>(200000), 100000);  // a row longer than a chunk
    file.write("none", std::vector<float>{});
    file.make_group("empty/group");
    file.close();
  }
  const File file = File::open(dir / "a.h5");
  EXPECT_EQ(file.shape("state/moment"), (Shape{300, 1000}));
  EXPECT_EQ(file.shape("/ids"), (Shape{100001, 0}));
  EXPECT_EQ(file.read<float>("state/moment"), floats);
  EXPECT_EQ(file.read<int32_t>("ids"), counted<int32_t>(100001));
  EXPECT_EQ(file.read<int64_t>("offsets"), counted<int64_t>(7));
  EXPECT_EQ(file.read<uint8_t>("mask"), counted<uint8_t>(9));
  EXPECT_EQ(file.read<double>("norms"), counted<double>(5));
  EXPECT_EQ(file.read<float>("wide"), counted<float>(200000));
  EXPECT_TRUE(file.read<float>("none").empty());
  EXPECT_EQ(file.read_rows<float>("state/moment", 123, 2),
            std::vector<float>(floats.begin() + 123000, floats.begin() + 125000));
  EXPECT_EQ(file.read_rows<int32_t>("ids", 100000, 1), std::vector<int32_t>{100001});
  EXPECT_TRUE(file.read_rows<int32_t>("ids", 100001, 0).empty());
  EXPECT_TRUE(file.has("empty/group"));
  EXPECT_FALSE(file.has("empty/other"));
  EXPECT_FALSE(file.has("absent/other"));
  EXPECT_EQ(file.type("mask"), hdf5::Type::u8);
}

TEST(Hdf5, RowsMayBeWrittenPieceByPiece) {
  ScratchDirectory dir;
  const auto values = counted<int64_t>(90000);
  File file = File::create(dir / "a.h5");
  file.create_dataset("x", hdf5::Type::i64, {30000, 3});
  for (int64_t begin = 0; begin < 30000; begin += 7000) {
    file.write_rows("x", hdf5::Type::i64, begin, std::min<int64_t>(7000, 30000 - begin), values.data() + begin * 3);
  }
  file.close();
  EXPECT_EQ(File::open(dir / "a.h5").read<int64_t>("x"), values);
}

TEST(Hdf5, Attributes) {
  ScratchDirectory dir;
  {
    File file = File::create(dir / "a.h5");
    file.write("x", counted<float>(3));
    file.set_attribute("/", "version", int64_t{7});
    file.set_attribute("/", "version", int64_t{-8});
    file.set_attribute("x", "name", "größe");
    file.set_attribute("x", "empty", "");
    file.close();
  }
  const File file = File::open(dir / "a.h5");
  EXPECT_EQ(file.i64_attribute("/", "version"), -8);
  EXPECT_EQ(file.string_attribute("x", "name"), "größe");
  EXPECT_EQ(file.string_attribute("x", "empty"), "");
  EXPECT_TRUE(file.has_attribute("x", "name"));
  EXPECT_FALSE(file.has_attribute("x", "version"));
  expect_error(Fault::bad_data, {"a.h5", "'x'", "'version'"}, [&] { file.i64_attribute("x", "version"); });
  expect_error(Fault::bad_data, {"version", "string"}, [&] { file.string_attribute("/", "version"); });
  expect_error(Fault::bad_data, {"name", "integer"}, [&] { file.i64_attribute("x", "name"); });
}

TEST(Hdf5, WrongQuestionsAreAnsweredWithPathAndName) {
  ScratchDirectory dir;
  {
    File file = File::create(dir / "a.h5");
    file.write("x", counted<float>(3));
    file.close();
  }
  const File file = File::open(dir / "a.h5");
  expect_error(Fault::missing_input, {"none.h5"}, [&] { File::open(dir / "none.h5"); });
  expect_error(Fault::bad_data, {"a.h5", "'y'"}, [&] { file.read<float>("y"); });
  expect_error(Fault::bad_data, {"a.h5", "'x'", "f32", "i32"}, [&] { file.read<int32_t>("x"); });
  expect_error(Fault::bad_data, {"a.h5", "rows 2 to 4", "3"}, [&] { file.read_rows<float>("x", 2, 2); });
  expect_error(Fault::bad_data, {"rows"}, [&] { file.read_rows<float>("x", -1, 2); });
  expect_error(Fault::bad_data, {"rows"}, [&] { file.read_rows<float>("x", 1, int64_t{1} << 62); });
  write_text(dir / "text.h5", "not an HDF5 file");
  expect_error(Fault::bad_data, {"text.h5"}, [&] { File::open(dir / "text.h5"); });
  expect_error(Fault::io, {"absent/b.h5"}, [&] { File::create(dir / "absent/b.h5"); });
}

TEST(Hdf5, AFlippedBitIsCaught) {
  ScratchDirectory dir;
  {
    File file = File::create(dir / "a.h5");
    file.write("x", std::vector<float>(5000, 3.0f));
    file.close();
  }
  std::string bytes = read_text(dir / "a.h5");
  const float three[4] = {3, 3, 3, 3};
  const size_t at = bytes.find(std::string(reinterpret_cast<const char*>(three), sizeof three));
  ASSERT_NE(at, std::string::npos);
  bytes[at + 1000] ^= 4;
  write_text(dir / "a.h5", bytes);
  expect_error(Fault::bad_data, {"a.h5", "'x'"}, [&] { File::open(dir / "a.h5").read<float>("x"); });
  write_text(dir / "a.h5", bytes.substr(0, bytes.size() / 2));
  expect_error(Fault::bad_data, {"a.h5"}, [&] { File::open(dir / "a.h5").read<float>("x"); });
}

TEST(Hdf5, AContiguousDatasetLiesInTheFileAsItIs) {
  ScratchDirectory dir;
  const auto bytes = counted<uint8_t>(77);
  const auto numbers = counted<int32_t>(300);
  {
    File file = File::create(dir / "a.h5");
    file.create_dataset("bytes", hdf5::Type::u8, {77, 0}, hdf5::Layout::contiguous);
    file.write_rows("bytes", hdf5::Type::u8, 0, 77, bytes.data());
    file.create_dataset("numbers", hdf5::Type::i32, {300, 0}, hdf5::Layout::contiguous);
    file.write_rows("numbers", hdf5::Type::i32, 0, 100, numbers.data());
    file.write_rows("numbers", hdf5::Type::i32, 100, 200, numbers.data() + 100);
    file.create_dataset("few bytes", hdf5::Type::u8, {5, 0}, hdf5::Layout::contiguous);
    file.write_rows("few bytes", hdf5::Type::u8, 0, 5, bytes.data());
    file.create_dataset("few numbers", hdf5::Type::i32, {3, 0}, hdf5::Layout::contiguous);
    file.write_rows("few numbers", hdf5::Type::i32, 0, 3, numbers.data());
    file.write("chunked", numbers);
    file.create_dataset("nothing", hdf5::Type::i32, {0, 0}, hdf5::Layout::contiguous);
    file.close();
  }
  const File file = File::open(dir / "a.h5");
  EXPECT_EQ(file.read<int32_t>("numbers"), numbers);
  const std::string text = read_text(dir / "a.h5");
  const size_t at = file.bytes_at("numbers", hdf5::Type::i32);
  EXPECT_EQ(at % 4, 0u);
  EXPECT_EQ(std::memcmp(text.data() + file.bytes_at("few numbers", hdf5::Type::i32), numbers.data(), 12), 0);
  EXPECT_EQ(std::memcmp(text.data() + at, numbers.data(), 1200), 0);
  EXPECT_EQ(std::memcmp(text.data() + file.bytes_at("bytes", hdf5::Type::u8), bytes.data(), 77), 0);
  for (const char* other : {"chunked", "nothing", "bytes"})
    expect_error(Fault::bad_data, {"a.h5", other, "one piece"}, [&] { (void)file.bytes_at(other, hdf5::Type::i32); });
}

TEST(Hdf5, ForeignStorageIsRefused) {
  ScratchDirectory dir;
  File::create(dir / "a.h5").close();
  write_text(dir / "secret", std::string(400, 's'));
  edit(dir / "a.h5", [&](hid_t file) {
    const hid_t external = H5Pcreate(H5P_DATASET_CREATE);
    H5Pset_external(external, (dir / "secret").c_str(), 0, 400);
    H5Dclose(plain(file, "external", 100, external));

    const hid_t huge = H5Pcreate(H5P_DATASET_CREATE);
    const hsize_t chunk = 1024;
    H5Pset_chunk(huge, 1, &chunk);
    H5Dclose(plain(file, "huge", hsize_t{1} << 39, huge));
    H5Dclose(plain(file, "beyond", hsize_t{1} << 50, huge));
    H5Pset_deflate(huge, 1);
    H5Dclose(plain(file, "deflated", hsize_t{1} << 39, huge));

    const hid_t filtered = H5Pcreate(H5P_DATASET_CREATE);
    H5Pset_chunk(filtered, 1, &chunk);
    H5Pset_scaleoffset(filtered, H5Z_SO_INT, 0);
    H5Dclose(plain(file, "filtered", 100, filtered, H5T_NATIVE_INT32));

    H5Dclose(plain(file, "big_endian", 10, H5P_DEFAULT, H5T_IEEE_F32BE));
    H5Lcreate_soft("/huge", file, "soft", H5P_DEFAULT, H5P_DEFAULT);
    H5Lcreate_external((dir / "a.h5").c_str(), "/huge", file, "elsewhere", H5P_DEFAULT, H5P_DEFAULT);
    H5Pclose(external);
    H5Pclose(huge);
    H5Pclose(filtered);
  });
  const File file = File::open(dir / "a.h5");
  const auto refused = [&](const char* name, const char* why) {
    SCOPED_TRACE(name);
    expect_error(Fault::bad_data, {"a.h5", name, why}, [&] { file.read<float>(name); });
  };
  refused("external", "another file");
  refused("huge", "holds 0 bytes");
  refused("beyond", "2^40");
  refused("deflated", "holds 0 bytes");
  refused("filtered", "filter");
  refused("big_endian", "element type");
  refused("soft", "link");
  refused("elsewhere", "link");
  expect_error(Fault::bad_data, {"'elsewhere'", "link"}, [&] { file.read<float>("elsewhere/inside"); });
}

TEST(Hdf5, ADiskThatTakesNoMoreIsAnError) {
  ScratchDirectory dir;
  const SmallFiles small(8192);
  expect_error(Fault::io, {"a.h5", "free"}, [&] {
    File file = File::create(dir / "a.h5");
    file.write("x", counted<float>(100000));
    file.close();
  });
}

// The library keeps a chunk until its dataset is closed: what fails then was not written, and the file that is closed
// well after that would lack it.
TEST(Hdf5, AWriteThatFailsOnceIsAnError) {
  ScratchDirectory dir;
  File file = File::create(dir / "a.h5");
  const SmallFiles small(512);
  expect_error(Fault::io, {"a.h5", "'x'", "File too large; "}, [&] { file.write("x", counted<float>(1000)); });
}

}  // namespace
}  // namespace drover
