#include "kernels/cuda/matmul_tuning.h"

#include <cmath>
#include <cstdlib>
#include <cstring>
#include <nlohmann/json.hpp>
#include <optional>
#include <vector>

#include "kernels/base/file.h"
#include "kernels/base/log.h"
#include "kernels/cuda/check.h"

namespace drover::cuda {

namespace {

constexpr size_t kLargestFile = size_t{64} << 20;

struct Line {
  TunedFor device;
  std::string matmul;
  TunedAlgorithm tuned;
};

std::string hex_of(const cublasLtMatmulAlgo_t& algorithm) {
  std::string hex;
  const auto* bytes = reinterpret_cast<const unsigned char*>(&algorithm);
  for (size_t i = 0; i < sizeof(algorithm); ++i) hex += fmt::format("{:02x}", bytes[i]);
  return hex;
}

std::optional<cublasLtMatmulAlgo_t> algorithm_of(const std::string& hex) {
  cublasLtMatmulAlgo_t algorithm{};
  if (hex.size() != 2 * sizeof(algorithm) || hex.find_first_not_of("0123456789abcdef") != std::string::npos) return {};
  auto* bytes = reinterpret_cast<unsigned char*>(&algorithm);
  for (size_t i = 0; i < sizeof(algorithm); ++i)
    bytes[i] = static_cast<unsigned char>(std::stoi(hex.substr(2 * i, 2), nullptr, 16));
  return algorithm;
}

std::optional<Line> parse(std::string_view text) {
  const auto json = nlohmann::json::parse(text, nullptr, false);
  if (!json.is_object()) return {};
  const auto text_at = [&](const char* key) {
    return json.contains(key) && json[key].is_string() ? json[key].get<std::string>() : std::string();
  };
  if (!json.contains("cublaslt") || !json["cublaslt"].is_number_integer() || !json.contains("us") ||
      !json["us"].is_number())
    return {};
  const auto algorithm = algorithm_of(text_at("algorithm"));
  Line line{{text_at("gpu"), json["cublaslt"].get<int64_t>()}, text_at("matmul"), {}};
  if (!algorithm || line.device.gpu.empty() || line.matmul.empty()) return {};
  line.tuned = {*algorithm, json["us"].get<double>()};
  return line;
}

std::string text_of(const Line& line) {
  const nlohmann::ordered_json json{{"gpu", line.device.gpu},
                                    {"cublaslt", line.device.cublaslt},
                                    {"matmul", line.matmul},
                                    {"algorithm", hex_of(line.tuned.algorithm)},
                                    {"us", std::round(line.tuned.microseconds * 1000) / 1000}};
  return json.dump(-1, ' ', false, nlohmann::json::error_handler_t::replace) + "\n";
}

struct Lines {
  std::vector<Line> good;
  int64_t bad = 0;
};
Lines lines_of(const std::filesystem::path& path) {
  Lines lines;
  const std::string text = read_text(path, kLargestFile);
  for (size_t begin = 0; begin < text.size();) {
    const size_t end = std::min(text.find('\n', begin), text.size());
    const std::string_view line = std::string_view(text).substr(begin, end - begin);
    begin = end + 1;
    if (line.empty()) continue;
    if (auto parsed = parse(line)) {
      lines.good.push_back(std::move(*parsed));
    } else {
      ++lines.bad;
    }
  }
  return lines;
}

bool absent(const std::filesystem::path& path) {
  std::error_code error;
  return path.empty() || !std::filesystem::exists(path, error);
}

}  // namespace

TunedFor this_device() {
  int device = 0;
  cudaDeviceProp properties{};
  check(cudaGetDevice(&device), "cudaGetDevice");
  check(cudaGetDeviceProperties(&properties, device), "cudaGetDeviceProperties");
  return {properties.name, static_cast<int64_t>(cublasLtGetVersion())};
}

std::filesystem::path tuned_path() {
  const auto variable = [](const char* name) -> std::filesystem::path {
    const char* value = std::getenv(name);
    return value == nullptr ? "" : value;
  };
  if (auto path = variable("DROVER_MATMUL_CACHE"); !path.empty()) return path;
  auto caches = variable("XDG_CACHE_HOME");
  if (caches.empty() && !variable("HOME").empty()) caches = variable("HOME") / ".cache";
  return caches.empty() ? caches : caches / "drover" / "matmul-algorithms";
}

TunedAlgorithms read_tuned(const std::filesystem::path& path, const TunedFor& device) {
  TunedAlgorithms tuned;
  if (absent(path)) return tuned;
  try {
    const Lines lines = lines_of(path);
    int64_t foreign = 0;
    for (const Line& line : lines.good) {
      if (line.device == device) {
        tuned[line.matmul] = line.tuned;
      } else {
        ++foreign;
      }
    }
    if (lines.bad + foreign > 0) {
      log::warn(
          "{}: {} lines are skipped: {} are not understood and {} are for another GPU or cuBLASLt (this is {}, version "
          "{})",
          path.string(), lines.bad + foreign, lines.bad, foreign, device.gpu, device.cublaslt);
    }
  } catch (const Error& error) {
    log::warn("tuned algorithms are not used: {}", error.what());
  }
  return tuned;
}

void write_tuned(const std::filesystem::path& path, const TunedFor& device, const TunedAlgorithms& algorithms) {
  std::map<std::pair<std::string, int64_t>, TunedAlgorithms> all;
  if (!absent(path)) {
    for (const Line& line : lines_of(path).good) all[{line.device.gpu, line.device.cublaslt}][line.matmul] = line.tuned;
  }
  for (const auto& [matmul, tuned] : algorithms) all[{device.gpu, device.cublaslt}][matmul] = tuned;
  std::string text;
  for (const auto& [owner, tuned] : all) {
    for (const auto& [matmul, algorithm] : tuned) text += text_of(Line{{owner.first, owner.second}, matmul, algorithm});
  }
  if (path.has_parent_path()) make_directories(path.parent_path());
  write_text(path, text);
}

}  // namespace drover::cuda
