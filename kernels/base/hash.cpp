#include "kernels/base/hash.h"

#include <fcntl.h>
#include <openssl/evp.h>
#include <unistd.h>
#include <xxhash.h>

#include <array>
#include <cerrno>
#include <cstring>
#include <string_view>
#include <vector>

#include "kernels/base/error.h"

namespace drover {

struct Sha256::State {
  EVP_MD_CTX* context = EVP_MD_CTX_new();
  ~State() { EVP_MD_CTX_free(context); }
};

namespace {

using Digest = std::array<unsigned char, 32>;

Digest finish(EVP_MD_CTX* context) {
  Digest digest{};
  unsigned int length = 0;
  require(EVP_DigestFinal_ex(context, digest.data(), &length) == 1 && length == digest.size(),
          "SHA-256 did not finish");
  return digest;
}

}  // namespace

Sha256::Sha256() : state_(std::make_unique<State>()) {
  require(state_->context != nullptr && EVP_DigestInit_ex(state_->context, EVP_sha256(), nullptr) == 1,
          "SHA-256 is not available");
}

Sha256::~Sha256() = default;

void Sha256::update(const void* data, size_t bytes) {
  require(EVP_DigestUpdate(state_->context, data, bytes) == 1, "SHA-256 refused its input");
}

std::string Sha256::hex() {
  std::string text;
  for (unsigned char byte : finish(state_->context)) text += fmt::format("{:02x}", byte);
  return text;
}

std::string sha256_hex(std::string_view text) {
  Sha256 hash;
  hash.update(text.data(), text.size());
  return hash.hex();
}

std::string sha256_file(const std::filesystem::path& path) {
  const int file = ::open(path.c_str(), O_RDONLY | O_CLOEXEC);
  if (file < 0) {
    fail(errno == ENOENT || errno == ENOTDIR ? Fault::missing_input : Fault::io, "cannot open {}: {}", path.string(),
         std::strerror(errno));
  }
  struct Closer {
    int file;
    ~Closer() { ::close(file); }
  } closer{file};
  ::posix_fadvise(file, 0, 0, POSIX_FADV_SEQUENTIAL);
  Sha256 hash;
  std::vector<char> buffer(1 << 20);
  while (true) {
    const ssize_t got = ::read(file, buffer.data(), buffer.size());
    if (got < 0 && errno == EINTR) continue;
    if (got < 0) fail(Fault::io, "cannot read {}: {}", path.string(), std::strerror(errno));
    if (got == 0) return hash.hex();
    hash.update(buffer.data(), static_cast<size_t>(got));
  }
}

uint64_t sha256_prefix(std::string_view text) {
  const std::string hex = sha256_hex(text);
  uint64_t value = 0;
  for (int byte = 7; byte >= 0; --byte) {
    value = value << 8 | std::stoul(hex.substr(static_cast<size_t>(byte) * 2, 2), nullptr, 16);
  }
  return value;
}

uint64_t xxh3(const void* data, size_t bytes, uint64_t seed) { return XXH3_64bits_withSeed(data, bytes, seed); }

}  // namespace drover
