// SHA-256 (OpenSSL) for manifests and provenance; XXH3-64 for quick checks of blocks.
#pragma once
#include <cstdint>
#include <filesystem>
#include <memory>
#include <span>
#include <string>

namespace drover {

class Sha256 {
 public:
  Sha256();
  ~Sha256();
  Sha256(const Sha256&) = delete;
  Sha256& operator=(const Sha256&) = delete;
  void update(const void* data, size_t bytes);
  std::string hex();  // finishes; 64 lower-case digits

 private:
  struct State;
  std::unique_ptr<State> state_;
};

std::string sha256_hex(std::string_view text);
std::string sha256_file(const std::filesystem::path& path);  // fails with missing_input or io
uint64_t sha256_prefix(std::string_view text);               // the first 8 bytes of the digest, little endian
uint64_t xxh3(const void* data, size_t bytes, uint64_t seed = 0);

}  // namespace drover
