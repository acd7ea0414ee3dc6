#include "trainer/run/event_file.h"

#include <algorithm>
#include <array>
#include <bit>
#include <charconv>
#include <chrono>

#include "kernels/base/error.h"
#include "kernels/base/host_name.h"

namespace drover {

namespace {

constexpr std::string_view kPrefix = "events.out.tfevents.";
constexpr uint32_t kPolynomial = 0x82F63B78;  // Castagnoli's, bits reversed
constexpr uint32_t kMaskAdded = 0xA282EAD8;   // of a masked CRC, so that a CRC of data with CRCs in it is a good one

constexpr std::array<uint32_t, 256> crc_table() {
  std::array<uint32_t, 256> table{};
  for (uint32_t byte = 0; byte < 256; ++byte) {
    uint32_t crc = byte;
    for (int bit = 0; bit < 8; ++bit) crc = (crc >> 1) ^ (crc & 1 ? kPolynomial : 0);
    table[byte] = crc;
  }
  return table;
}

template <typename T>
std::string little_endian(T value) {
  std::string bytes;
  for (size_t i = 0; i < sizeof value; ++i) bytes += static_cast<char>(value >> (8 * i));
  return bytes;
}

std::string masked_crc(std::string_view bytes) { return little_endian(std::rotr(crc32c(bytes), 15) + kMaskAdded); }

// A protobuf message field by field. A field begins with its number and the kind of what follows.
class Message {
 public:
  Message& varint(int field, int64_t value) {
    begin(field, 0);
    put(static_cast<uint64_t>(value));
    return *this;
  }
  Message& number(int field, double value) {
    begin(field, 1);
    text_ += little_endian(std::bit_cast<uint64_t>(value));
    return *this;
  }
  Message& bytes(int field, std::string_view value) {
    begin(field, 2);
    put(value.size());
    text_ += value;
    return *this;
  }
  Message& number(int field, float value) {
    begin(field, 5);
    text_ += little_endian(std::bit_cast<uint32_t>(value));
    return *this;
  }
  const std::string& text() const { return text_; }

 private:
  void begin(int field, int kind) { put(static_cast<uint64_t>(field << 3 | kind)); }
  void put(uint64_t value) {
    for (; value > 0x7F; value >>= 7) text_ += static_cast<char>(value | 0x80);
    text_ += static_cast<char>(value);
  }
  std::string text_;
};

// Event {wall_time = 1, step = 2, file_version = 3, summary = 5, session_log = 7}
Message event(double wall_time) { return Message().number(1, wall_time); }

double now() { return std::chrono::duration<double>(std::chrono::system_clock::now().time_since_epoch()).count(); }

// After all files of the directory, whatever the clock says: TensorBoard reads them in the order of their names.
int64_t seconds_of_next_file(const fs::path& directory) {
  int64_t next = static_cast<int64_t>(now());
  for (const fs::directory_entry& entry : fs::directory_iterator(directory)) {
    const std::string name = entry.path().filename().string();
    int64_t seconds = 0;
    if (!name.starts_with(kPrefix)) continue;
    const auto [end, code] = std::from_chars(name.data() + kPrefix.size(), name.data() + name.size(), seconds);
    if (code == std::errc() && seconds < INT64_MAX) next = std::max(next, seconds + 1);
  }
  return next;
}

}  // namespace

uint32_t crc32c(std::string_view bytes) {
  static constexpr std::array<uint32_t, 256> kTable = crc_table();
  uint32_t crc = ~0u;
  for (char c : bytes) crc = (crc >> 8) ^ kTable[(crc ^ static_cast<uint8_t>(c)) & 0xFF];
  return ~crc;
}

std::string framed(std::string_view event) {
  const std::string length = little_endian(uint64_t{event.size()});
  return length + masked_crc(length) + std::string(event) + masked_crc(event);
}

std::string version_event(double wall_time) { return event(wall_time).bytes(3, "brain.Event:2").text(); }

// SessionLog {status = 1: START = 1}
std::string start_event(double wall_time, int64_t step) {
  return event(wall_time).varint(2, step).bytes(7, Message().varint(1, 1).text()).text();
}

// Summary {value = 1, repeated: {tag = 1, simple_value = 2}}
std::string scalar_event(double wall_time, int64_t step, std::span<const EventFile::Scalar> scalars) {
  Message summary;
  for (const EventFile::Scalar& s : scalars)
    summary.bytes(1, Message().bytes(1, s.tag).number(2, static_cast<float>(s.value)).text());
  return event(wall_time).varint(2, step).bytes(5, summary.text()).text();
}

EventFile::EventFile(fs::path directory, int64_t first_step)
    : directory_(std::move(directory)), first_step_(first_step) {}

void EventFile::write(int64_t step, std::span<const Scalar> scalars) {
  const double time = now();
  if (!out_) {
    make_directories(directory_);
    const std::string name = fmt::format("{}{:010}.{}", kPrefix, seconds_of_next_file(directory_), host_name());
    out_.emplace(directory_ / name, AppendFile::Begin::anew);
    out_->write(framed(version_event(time)) + framed(start_event(time, first_step_)));
  }
  out_->write(framed(scalar_event(time, step, scalars)));
}

}  // namespace drover
