#include "trainer/planning/calibration.h"

#include <cstdlib>
#include <nlohmann/json.hpp>

#include "kernels/base/error.h"
#include "kernels/base/hash.h"
#include "kernels/base/json.h"

namespace drover {

namespace {

using nlohmann::json;
using nlohmann::ordered_json;

constexpr const char* kDTypes[] = {"f32", "bf16", "i32", "f64", "u8"};
constexpr const char* kFormats[] = {"f32", "bf16", "fp8", "nf4", "fp8 products"};
constexpr size_t kFp8Products = 4;
constexpr int kVersion = 1;  // of the file

ordered_json json_of(const OpSample& s) {
  return {s.op,
          kDTypes[static_cast<size_t>(s.dtype)],
          kFormats[s.products == Products::fp8 ? kFp8Products : static_cast<size_t>(s.format)],
          s.generates,
          s.a.rows,
          s.a.cols,
          s.b.rows,
          s.b.cols,
          s.flops,
          s.bytes,
          s.seconds};
}

template <size_t N>
size_t index_of(const char* const (&names)[N], const std::string& name) {
  for (size_t i = 0; i < N; ++i) {
    if (name == names[i]) return i;
  }
  fail(Fault::bad_data, "'{}' is none of {}", name, fmt::join(names, ", "));
}

double within(const json& j, double least, double most, const char* what) {
  const double value = j.get<double>();
  if (!(value >= least && value <= most))
    fail(Fault::bad_data, "{} is {}; allowed is {:g} to {:g}", what, j.dump(), least, most);
  return value;
}

int64_t count_of(const json& j, const char* what, double least = 0) {
  return static_cast<int64_t>(within(j, least, 0x1p60, what));
}

constexpr double kShortest = 1e-10, kLongest = 1e5;  // seconds

OpSample sample_of(const json& j) {
  constexpr size_t kColumns = 11;
  if (j.size() != kColumns)
    fail(Fault::bad_data, "a row of ops has {} columns, and {} are allowed", j.size(), kColumns);
  OpSample s{.op = j.at(0),
             .generates = j.at(3),
             .a = {count_of(j.at(4), "a.rows"), count_of(j.at(5), "a.cols")},
             .b = {count_of(j.at(6), "b.rows"), count_of(j.at(7), "b.cols")},
             .flops = count_of(j.at(8), "flops"),
             .bytes = count_of(j.at(9), "bytes"),
             .seconds = within(j.at(10), kShortest, kLongest, "an op's seconds")};
  s.dtype = static_cast<DType>(index_of(kDTypes, j.at(1)));
  const size_t format = index_of(kFormats, j.at(2));
  s.format = format == kFp8Products ? Format::fp8 : static_cast<Format>(format);
  s.products = format == kFp8Products ? Products::fp8 : Products::widened;
  return s;
}

MessageSample message_of(const json& j) {
  constexpr size_t kColumns = 4;
  if (j.size() != kColumns)
    fail(Fault::bad_data, "a row of messages has {} columns, and {} are allowed", j.size(), kColumns);
  return {j.at(0), static_cast<int>(within(j.at(1), 2, 1e6, "ranks of a message")), count_of(j.at(2), "bytes"),
          within(j.at(3), kShortest, kLongest, "a message's seconds")};
}

std::string slug(const std::string& text) {
  std::string name;
  for (const char c : text) {
    if (std::isalnum(static_cast<unsigned char>(c)) != 0) {
      name += static_cast<char>(std::tolower(static_cast<unsigned char>(c)));
    } else if (!name.empty() && name.back() != '-') {
      name += '-';
    }
  }
  name.resize(std::min<size_t>(name.size(), 40));
  while (!name.empty() && name.back() == '-') name.pop_back();
  return name;
}

}  // namespace

fs::path calibration_directory() {
  const char* cache = std::getenv("XDG_CACHE_HOME");
  if (cache != nullptr && *cache == '/') return fs::path(cache) / "drover";
  const char* home = std::getenv("HOME");
  return fs::path(home != nullptr && *home != 0 ? home : "/tmp") / ".cache/drover";
}

fs::path calibration_file(const MeasuredMachine& m) {
  const std::string hash = sha256_hex(fmt::format("{}\n{}\n{}", m.device, m.ranks, m.threads)).substr(0, 8);
  return calibration_directory() / fmt::format("calibration-{}-{}.json", slug(m.device), hash);
}

void write_calibration(const Calibration& c, const fs::path& file) {
  ordered_json ops = ordered_json::array(), messages = ordered_json::array();
  for (const OpSample& s : c.ops) ops.push_back(json_of(s));
  for (const MessageSample& m : c.messages) messages.push_back({m.kind, m.ranks, m.bytes, m.seconds});
  const ordered_json j = {
      {"format", kVersion},
      {"device", c.machine.device},
      {"ranks", c.machine.ranks},
      {"threads", c.machine.threads},
      {"version", c.version},
      {"date", c.date},
      {"seconds", c.seconds},
      {"outside_per_call", c.outside_per_call},
      {"read", c.read},
      {"write", c.write},
      {"op_columns",
       {"op", "dtype", "format", "generates", "a.rows", "a.cols", "b.rows", "b.cols", "flops", "bytes", "seconds"}},
      {"ops", ops},
      {"message_columns", {"kind", "ranks", "bytes", "seconds"}},
      {"messages", messages}};
  std::error_code failed;
  fs::create_directories(file.parent_path(), failed);
  write_text(file, j.dump() + "\n");
}

Calibration read_calibration(const fs::path& file) {
  const json j = parse_json(read_text(file), file.string());
  try {
    if (j.at("format") != kVersion)
      fail(Fault::bad_data, "it is of format {}, and this program reads {}", j.at("format").dump(), kVersion);
    const auto whole = [&](const char* key) { return static_cast<int>(within(j.at(key), 1, 1e6, key)); };
    Calibration c{.machine = {j.at("device"), whole("ranks"), whole("threads")},
                  .version = j.at("version"),
                  .date = j.at("date"),
                  .seconds = within(j.at("seconds"), 0, 1e9, "seconds"),
                  .outside_per_call = within(j.at("outside_per_call"), 0, 1, "outside_per_call"),
                  .read = within(j.at("read"), 0, 1e15, "read"),
                  .write = j.contains("write") ? within(j.at("write"), 0, 1e15, "write") : 0,
                  .ops = {},
                  .messages = {}};
    for (const json& sample : j.at("ops")) c.ops.push_back(sample_of(sample));
    for (const json& m : j.at("messages")) c.messages.push_back(message_of(m));
    if (c.ops.empty()) fail(Fault::bad_data, "it holds no op");
    return c;
  } catch (const json::exception& e) {
    fail(Fault::bad_data, "{}: no calibration ({}); measure again: drover doctor --calibrate", file.string(), e.what());
  } catch (const Error& e) {
    fail(Fault::bad_data, "{}: {}; measure again: drover doctor --calibrate", file.string(), e.what());
  }
}

std::optional<Calibration> find_calibration(const MeasuredMachine& machine) {
  const fs::path file = calibration_file(machine);
  std::error_code ignored;
  if (!fs::exists(file, ignored)) return {};
  return read_calibration(file);
}

}  // namespace drover
