// The tuned cache: for a shape, which of cuBLASLt's algorithms was the fastest. A text file of JSON lines that all GPUs
// and versions of a user share:
//   {"gpu":"NVIDIA H100 80GB HBM3","cublaslt":130100,"matmul":"…","algorithm":"<128 hex digits>","us":41.2}
#pragma once
#include <cublasLt.h>

#include <cstdint>
#include <filesystem>
#include <map>
#include <string>

namespace drover::cuda {

struct TunedAlgorithm {
  cublasLtMatmulAlgo_t algorithm{};
  double microseconds = 0;
};
using TunedAlgorithms = std::map<std::string, TunedAlgorithm>;  // by text_of(MatmulKey)

// An algorithm's bytes mean something to the library version that made them, and its time to the GPU that took it.
struct TunedFor {
  std::string gpu;
  int64_t cublaslt = 0;
  bool operator==(const TunedFor&) const = default;
};
TunedFor this_device();

std::filesystem::path tuned_path();  // $DROVER_MATMUL_CACHE, else drover/matmul-algorithms in $XDG_CACHE_HOME or
                                     // ~/.cache; empty where none is set

// This device's lines; later ones win. Nothing is fatal: without a file there are none, and lines that are not
// understood or another device's are skipped with one warning.
TunedAlgorithms read_tuned(const std::filesystem::path& path, const TunedFor& device);
// Adds to this device's lines or replaces them; lines of other devices stay, those that are not understood go.
void write_tuned(const std::filesystem::path& path, const TunedFor& device, const TunedAlgorithms& algorithms);

}  // namespace drover::cuda
