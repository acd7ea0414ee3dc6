// Event files byte by byte: what TensorBoard checks (lengths, CRCs) and reads (fields by number).
#include "trainer/run/event_file.h"

#include <bit>
#include <cstring>
#include <map>

#include "tests/base/scratch_directory.h"
#include "trainer/run/metrics.h"

namespace drover {
namespace {

template <typename T>
T number_at(const std::string& bytes, size_t at) {
  T value;
  require(at + sizeof value <= bytes.size(), "the number is there");
  std::memcpy(&value, bytes.data() + at, sizeof value);
  return value;
}

// The CRC bit by bit, and its mask by shifts.
uint32_t masked(std::string_view bytes) {
  uint32_t crc = 0xFFFFFFFF;
  for (char c : bytes) {
    crc ^= static_cast<uint8_t>(c);
    for (int bit = 0; bit < 8; ++bit) crc = crc & 1 ? crc >> 1 ^ 0x82F63B78 : crc >> 1;
  }
  crc = ~crc;
  return (crc >> 15 | crc << 17) + 0xA282EAD8;
}

std::vector<std::string> events_in(const std::string& file) {
  std::vector<std::string> events;
  for (size_t at = 0; at < file.size();) {
    const auto length = number_at<uint64_t>(file, at);
    EXPECT_EQ(number_at<uint32_t>(file, at + 8), masked(std::string_view(file).substr(at, 8)));
    events.push_back(file.substr(at + 12, length));
    EXPECT_EQ(events.back().size(), length);
    EXPECT_EQ(number_at<uint32_t>(file, at + 12 + length), masked(events.back()));
    at += 12 + length + 4;
  }
  return events;
}

// Fields of a protobuf message, as their bytes; of varints the value in eight bytes.
std::multimap<int, std::string> fields_of(const std::string& message) {
  std::multimap<int, std::string> fields;
  size_t at = 0;
  const auto varint = [&] {
    uint64_t value = 0;
    for (int shift = 0;; shift += 7) {
      const auto byte = static_cast<uint8_t>(message.at(at++));
      value |= static_cast<uint64_t>(byte & 0x7F) << shift;
      if (byte < 0x80) return value;
    }
  };
  while (at < message.size()) {
    const uint64_t key = varint();
    const int kind = static_cast<int>(key & 7);
    const uint64_t value = kind == 0 ? varint() : 0;
    const size_t size = kind == 1 ? 8 : kind == 5 ? 4 : kind == 2 ? varint() : 0;
    std::string bytes = message.substr(at, size);
    if (kind == 0) bytes.assign(reinterpret_cast<const char*>(&value), sizeof value);
    fields.emplace(static_cast<int>(key >> 3), bytes);
    at += size;
  }
  return fields;
}

uint64_t step_of(const std::string& event) { return number_at<uint64_t>(fields_of(event).find(2)->second, 0); }

std::map<std::string, float> scalars_of(const std::string& event) {
  std::map<std::string, float> scalars;
  const auto fields = fields_of(event);
  if (!fields.contains(5)) return scalars;
  for (const auto& [number, value] : fields_of(fields.find(5)->second)) {
    const auto parts = fields_of(value);
    scalars[parts.find(1)->second] = number_at<float>(parts.find(2)->second, 0);
  }
  return scalars;
}

std::vector<fs::path> files_in(const fs::path& directory) {
  std::vector<fs::path> files;
  for (const fs::directory_entry& entry : fs::directory_iterator(directory)) files.push_back(entry.path());
  std::ranges::sort(files);
  return files;
}

TEST(EventFiles, CrcIsCastagnolis) {
  EXPECT_EQ(crc32c("123456789"), 0xE3069283u);            // the check value of catalogues of CRCs
  EXPECT_EQ(crc32c(std::string(32, '\0')), 0x8A9136AAu);  // RFC 3720, B.4
  EXPECT_EQ(crc32c(""), 0u);
}

TEST(EventFiles, HoldVersionStartAndScalars) {
  const ScratchDirectory home;
  EventFile file(home / "tensorboard", 7);
  EXPECT_FALSE(fs::exists(home / "tensorboard"));  // nothing was written yet
  const EventFile::Scalar scalars[] = {{"loss", 1.25}, {"peak_bytes", 3e12}};
  file.write(7, scalars);
  file.write(300, {scalars, 1});
  const std::vector<fs::path> files = files_in(home / "tensorboard");
  ASSERT_EQ(files.size(), 1u);
  EXPECT_TRUE(files[0].filename().string().starts_with("events.out.tfevents."));
  const std::vector<std::string> events = events_in(read_text(files[0]));
  ASSERT_EQ(events.size(), 4u);
  const double time = number_at<double>(fields_of(events[0]).find(1)->second, 0);
  EXPECT_GT(time, 1.7e9);
  EXPECT_EQ(fields_of(events[0]).find(3)->second, "brain.Event:2");
  EXPECT_EQ(step_of(events[1]), 7u);
  EXPECT_EQ(fields_of(events[1]).find(7)->second, std::string("\x08\x01"));  // status: START
  EXPECT_EQ(step_of(events[2]), 7u);
  EXPECT_EQ(scalars_of(events[2]), (std::map<std::string, float>{{"loss", 1.25f}, {"peak_bytes", 3e12f}}));
  EXPECT_EQ(step_of(events[3]), 300u);
  EXPECT_EQ(scalars_of(events[3]), (std::map<std::string, float>{{"loss", 1.25f}}));
}

// TensorBoard reads the files of a run in the order of their names.
TEST(EventFiles, ANewFileComesAfterTheOldOnes) {
  const ScratchDirectory home;
  const fs::path old = home / "events.out.tfevents.4000000000.other";
  write_text(old, "");
  write_text(home / "notes", "");
  const EventFile::Scalar scalar{"loss", 1};
  for (int i = 0; i < 2; ++i) EventFile(home.path(), 1).write(1, {&scalar, 1});
  const std::vector<fs::path> files = files_in(home.path());
  ASSERT_EQ(files.size(), 4u);
  EXPECT_EQ(files[0], old);
  EXPECT_TRUE(files[1].filename().string().starts_with("events.out.tfevents.4000000001."));
  EXPECT_TRUE(files[2].filename().string().starts_with("events.out.tfevents.4000000002."));
}

TEST(EventFiles, SayWhatMetricsSay) {
  const ScratchDirectory home;
  for (int64_t last_step : {0, 4}) {
    MetricsFile metrics(home / "metrics.jsonl", last_step);
    metrics.add_events(home / "tensorboard");
    metrics.step({.step = last_step + 1,
                  .loss = 2.5,
                  .grad_norm = 0.5,
                  .learning_rate = 0.125,
                  .tokens = 300,
                  .step_seconds = 2,
                  .peak_bytes = 4096});
    metrics.validation(last_step + 1, 3.5, 70);
  }
  const std::vector<fs::path> files = files_in(home / "tensorboard");
  ASSERT_EQ(files.size(), 2u);
  for (size_t i = 0; i < 2; ++i) {
    const std::vector<std::string> events = events_in(read_text(files[i]));
    ASSERT_EQ(events.size(), 4u);
    EXPECT_EQ(step_of(events[1]), i == 0 ? 0u : 5u);
    EXPECT_EQ(step_of(events[2]), i == 0 ? 1u : 5u);
    EXPECT_EQ(scalars_of(events[2]), (std::map<std::string, float>{{"loss", 2.5f},
                                                                   {"grad_norm", 0.5f},
                                                                   {"learning_rate", 0.125f},
                                                                   {"tokens_per_second", 150},
                                                                   {"peak_bytes", 4096}}));
    EXPECT_EQ(scalars_of(events[3]), (std::map<std::string, float>{{"validation_loss", 3.5f}}));
  }
}

TEST(EventFiles, SayWhyTheyCannotBeWritten) {
  const ScratchDirectory home;
  write_text(home / "tensorboard", "a file");
  const EventFile::Scalar scalar{"loss", 1};
  EventFile file(home / "tensorboard", 1);
  expect_error(Fault::io, {"tensorboard"}, [&] { file.write(1, {&scalar, 1}); });
}

}  // namespace
}  // namespace drover
