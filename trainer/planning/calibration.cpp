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

OpSample sample_of(const json& j) {
  OpSample s{.op = j.at(0),
             .generates = j.at(3),
             .a = {j.at(4), j.at(5)},
             .b = {j.at(6), j.at(7)},
             .flops = j.at(8),
             .bytes = j.at(9),
             .seconds = j.at(10)};
  s.dtype = static_cast<DType>(index_of(kDTypes, j.at(1)));
  const size_t format = index_of(kFormats, j.at(2));
  s.format = format == kFp8Products ? Format::fp8 : static_cast<Format>(format);
  s.products = format == kFp8Products ? Products::fp8 : Products::widened;
  if (!(s.seconds > 0)) fail(Fault::bad_data, "the op {} took {} seconds", s.op, s.seconds);
  return s;
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
    Calibration c{.machine = {j.at("device"), j.at("ranks"), j.at("threads")},
                  .version = j.at("version"),
                  .date = j.at("date"),
                  .seconds = j.at("seconds"),
                  .outside_per_call = j.at("outside_per_call"),
                  .read = j.at("read"),
                  .ops = {},
                  .messages = {}};
    for (const json& sample : j.at("ops")) c.ops.push_back(sample_of(sample));
    for (const json& m : j.at("messages")) c.messages.push_back({m.at(0), m.at(1), m.at(2), m.at(3)});
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
