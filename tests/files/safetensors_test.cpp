#include "model/files/safetensors.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>

#include "model/files/safetensors_writer.h"
#include "tests/base/scratch_directory.h"
#include "tests/files/made_up_files.h"

namespace drover {
namespace {

const std::string kGood =
    R"({"a":{"dtype":"F32","shape":[2,3],"data_offsets":[0,24]},"b":{"dtype":"U8","shape":[],"data_offsets":[24,25]}})";

void expect_refused(const std::string& bytes, std::initializer_list<std::string> words) {
  ScratchDirectory dir;
  write_text(dir / "x.safetensors", bytes);
  expect_error(Fault::bad_data, {"x.safetensors"}, [&] { SafetensorsFile file(dir / "x.safetensors"); });
  expect_error(Fault::bad_data, words, [&] { SafetensorsFile file(dir / "x.safetensors"); });
}

TEST(Safetensors, ReadsNumbersTextAndEmptyTensors) {
  ScratchDirectory dir;
  write_text(
      dir / "x",
      safetensors_text(R"({"__metadata__":{"format":"pt"},"z":{"data_offsets":[24,24],"dtype":"BF16","shape":[0,7]},)" +
                           kGood.substr(1) + "  ",
                       25));
  const SafetensorsFile file(dir / "x");
  EXPECT_EQ(file.metadata().at("format"), "pt");
  ASSERT_EQ(file.tensors().size(), 3u);
  EXPECT_EQ(file.find("a")->shape, (std::vector<int64_t>{2, 3}));
  EXPECT_EQ(file.find("b")->size(), 1);
  EXPECT_EQ(file.find("z")->size(), 0);
  EXPECT_EQ(file.find("a")->bytes, 24u);
  EXPECT_EQ(file.find("none"), nullptr);
}

// Columns of short rows, which are read whole, of more rows than are read at once; and of long ones.
TEST(Safetensors, RowsAreReadInPart) {
  ScratchDirectory dir;
  const int64_t sizes[][2] = {{5000, 7}, {9, 3000}};
  const auto value = [](int64_t row, int64_t col) { return static_cast<float>(row * 4000 + col); };
  std::vector<TensorSpec> specs;
  for (const auto& [rows, cols] : sizes) specs.push_back({std::to_string(rows), StoredType::f32, {rows, cols}});
  SafetensorsWriter writer(dir / "x", specs);
  for (const TensorSpec& spec : writer.order()) {
    std::vector<float> values;
    for (int64_t i = 0; i < spec.shape[0] * spec.shape[1]; ++i)
      values.push_back(value(i / spec.shape[1], i % spec.shape[1]));
    writer.write(spec.name, values.data(), static_cast<int64_t>(values.size() * sizeof(float)));
  }
  writer.commit();
  const SafetensorsFile file(dir / "x");
  for (const auto& [rows, cols] : sizes) {
    const StoredTensor& tensor = *file.find(std::to_string(rows));
    for (const auto& [col, count] : {std::pair<int64_t, int64_t>{0, cols}, {2, cols - 4}, {cols - 1, 1}}) {
      const RowBytes part{static_cast<size_t>(cols) * 4, static_cast<size_t>(col) * 4, static_cast<size_t>(count) * 4};
      std::vector<float> read(static_cast<size_t>((rows - 2) * count));
      file.read_rows(tensor, 1, static_cast<size_t>(rows - 2), part, read.data());
      int64_t wrong = 0;
      for (int64_t i = 0; i < (rows - 2) * count; ++i)
        wrong += read[static_cast<size_t>(i)] != value(1 + i / count, col + i % count);
      EXPECT_EQ(wrong, 0) << rows << " × " << cols << ", columns " << col << " + " << count;
    }
    size_t bytes = 0;
    file.read_in_pieces(tensor, [&](std::span<const std::byte> piece) { bytes += piece.size(); });
    EXPECT_EQ(bytes, tensor.bytes);
  }
  std::vector<float> one(1);
  EXPECT_THROW(file.read(*file.find("9"), 9 * 3000 * 4, 4, one.data()), Error);  // behind its last byte
  fs::resize_file(dir / "x", 2000);
  expect_error(Fault::io, {"x has become shorter"}, [&] { file.read(*file.find("9")); });
}

TEST(Safetensors, RefusesEveryBrokenRule) {
  for (size_t size : {0u, 1u, 7u}) expect_refused(std::string(size, 'x'), {"only", "bytes"});
  expect_refused(bytes_of(uint64_t{1} << 63), {"9223372036854775808", "format allows"});
  expect_refused(bytes_of(uint64_t{100}) + "{}", {"does not fit", "cut off"});
  expect_refused("version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 9\n",
                 {"Git LFS pointer", "git lfs pull"});
  expect_refused(safetensors_text("[]", 0), {"does not begin"});
  expect_refused(safetensors_text("", 0), {"does not begin"});
  expect_refused(safetensors_text("{", 0), {"not valid JSON"});
  expect_refused(safetensors_text("{} {", 0), {"not valid JSON"});
  expect_refused(safetensors_text("{\"\xff\":{}}", 0), {"not valid JSON"});
  expect_refused(safetensors_text("{\"a\":" + std::string(100000, '[') + "}", 0), {"a list"});
  expect_refused(safetensors_text(kGood, 24), {"cut off", "b"});
  expect_refused(safetensors_text(kGood, 26), {"1 bytes follow"});
  const auto one = [](const std::string& dtype, const std::string& shape, const std::string& offsets) {
    return R"({"a":{"dtype":")" + dtype + R"(","shape":)" + shape + R"(,"data_offsets":)" + offsets + "}}";
  };
  expect_refused(safetensors_text(one("F32", "[1]", "[4,8]"), 8), {"begins at 4 where 0"});
  expect_refused(safetensors_text(one("F32", "[1]", "[8,4]"), 8), {"ends at 4 before"});
  expect_refused(safetensors_text(one("F32", "[2]", "[0,4]"), 4), {"4 bytes of data", "needs 8"});
  expect_refused(safetensors_text(one("Q4", "[2]", "[0,4]"), 4), {"dtype \"Q4\""});
  expect_refused(safetensors_text(one("F32", "[-1]", "[0,4]"), 4), {"-1"});
  expect_refused(safetensors_text(one("F32", "[1.0]", "[0,4]"), 4), {"1.0"});
  expect_refused(safetensors_text(one("F32", "[4294967296,4294967296]", "[0,0]"), 0), {"too large"});
  expect_refused(safetensors_text(one("F32", "[18446744073709551615]", "[0,0]"), 0), {"too large"});
  expect_refused(safetensors_text(one("F32", "[1,1,1,1,1,1,1,1,1]", "[0,4]"), 4), {"dimensions"});
  expect_refused(safetensors_text(one("F32", "[1]", "[0]"), 4), {"fewer than two"});
  expect_refused(safetensors_text(one("F32", "[1]", "[0,4,8]"), 4), {"more than two"});
  expect_refused(safetensors_text(R"({"a":{"dtype":"F32","shape":[1]}})", 4), {"not all of"});
  expect_refused(safetensors_text(R"({"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4],"x":1}})", 4),
                 {"unknown field"});
  expect_refused(safetensors_text(R"({"a":1})", 4), {"the number 1"});
  expect_refused(safetensors_text(R"({"__metadata__":{"a":1}})", 0), {"the number 1"});
  const std::string b = R"("a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]})";
  expect_refused(safetensors_text("{" + b + "," + b + "}", 4), {"stands twice"});
  expect_refused(safetensors_text("{" + b + R"(,"c":{"dtype":"F32","shape":[1],"data_offsets":[2,6]}})", 6),
                 {"overlap"});
  expect_refused(safetensors_text("{\"" + std::string(513, 'n') + "\":{}}", 0), {"513 bytes"});
}

TEST(Safetensors, RefusesTooManyTensorsAndTooLongHeaders) {
  std::string header = "{";
  for (int i = 0; i < 65537; ++i)
    header += fmt::format("{}\"{}\":{{\"dtype\":\"U8\",\"shape\":[0],\"data_offsets\":[0,0]}}", i == 0 ? "" : ",", i);
  expect_refused(safetensors_text(header + "}", 0), {"more than 65536 tensors"});
  ScratchDirectory dir;
  write_text(dir / "long", safetensors_text("{}" + std::string(kHeaderLimit, ' '), 0));
  expect_error(Fault::bad_data, {"at most 33554432"}, [&] { SafetensorsFile file(dir / "long"); });
  EXPECT_TRUE(SafetensorsFile(dir / "long", kFormatHeaderLimit).tensors().empty());
}

TEST(SafetensorsWriter, WritesTheReferenceBytes) {
  ScratchDirectory dir;
  write_safetensors(dir / "x", {{{"b", StoredType::bf16, {2}}, {1, 2}},
                                {{"c", StoredType::f32, {1, 1}}, {3}},
                                {{"a", StoredType::bf16, {1}}, {4}}});
  // As the format's Python package (0.8) writes these three tensors: F32 before BF16, then by name; the header padded
  // to a multiple of 8.
  std::string header =
      R"({"__metadata__":{"format":"pt"},"c":{"dtype":"F32","shape":[1,1],"data_offsets":[0,4]},)"
      R"("a":{"dtype":"BF16","shape":[1],"data_offsets":[4,6]},"b":{"dtype":"BF16","shape":[2],"data_offsets":[6,10]}})";
  header.resize((header.size() + 7) / 8 * 8, ' ');
  const std::string data = bytes_of(3.0f) + bytes_of(bf16(4)) + bytes_of(bf16(1)) + bytes_of(bf16(2));
  EXPECT_EQ(read_text(dir / "x"), bytes_of(static_cast<uint64_t>(header.size())) + header + data);
}

TEST(SafetensorsWriter, HoldsItsCallerToTheOrder) {
  ScratchDirectory dir;
  const std::vector<TensorSpec> specs = {{"a", StoredType::f32, {2}}, {"b", StoredType::f32, {1}}};
  const float values[2] = {1, 2};
  SafetensorsWriter writer(dir / "x", specs);
  expect_error(Fault::internal, {"order"}, [&] { writer.write("b", values, 4); });
  writer.write("a", values, 4);
  expect_error(Fault::internal, {"declared"}, [&] { writer.write("a", values, 8); });
  writer.write("a", values + 1, 4);
  expect_error(Fault::internal, {"every declared tensor"}, [&] { writer.commit(); });
  writer.write("b", values, 4);
  writer.commit();
  EXPECT_EQ(SafetensorsFile(dir / "x").tensors().size(), 2u);
}

TEST(StoredType, HalvesAreExact) {
  EXPECT_EQ(float_of_half(0x3c00), 1.0f);
  EXPECT_EQ(float_of_half(0xc000), -2.0f);
  EXPECT_EQ(float_of_half(0x7bff), 65504.0f);
  EXPECT_EQ(float_of_half(0x0001), 0x1p-24f);
  EXPECT_EQ(float_of_half(0x83ff), -1023 * 0x1p-24f);
  EXPECT_TRUE(std::signbit(float_of_half(0x8000)));
  EXPECT_TRUE(std::isinf(float_of_half(0x7c00)));
  EXPECT_TRUE(std::isnan(float_of_half(0x7e01)));
}

TEST(StoredType, HalvesRoundToTheNearest) {
  for (uint32_t bits = 0; bits < 0x7c00; ++bits) {
    const auto half = static_cast<uint16_t>(bits), next = static_cast<uint16_t>(bits + 1);
    const float value = float_of_half(half), above = next == 0x7c00 ? 65536.0f : float_of_half(next);
    EXPECT_EQ(half_of_float(value), half);
    EXPECT_EQ(half_of_float(-value), half | 0x8000);
    const float middle = value + (above - value) / 2;  // exact in fp32
    EXPECT_EQ(half_of_float(middle), bits % 2 == 0 ? half : next) << bits;
    EXPECT_EQ(half_of_float(std::nextafter(middle, 0.0f)), half) << bits;
    EXPECT_EQ(half_of_float(std::nextafter(middle, 1e9f)), next) << bits;
  }
  EXPECT_EQ(half_of_float(std::numeric_limits<float>::infinity()), 0x7c00);
  EXPECT_EQ(half_of_float(-1e30f), 0xfc00);
  EXPECT_TRUE(std::isnan(float_of_half(half_of_float(std::numeric_limits<float>::quiet_NaN()))));
}

}  // namespace
}  // namespace drover
