#include "launch/http/api_keys.h"

#include <openssl/crypto.h>
#include <sys/stat.h>

#include <algorithm>

#include "kernels/base/error.h"
#include "kernels/base/file.h"
#include "kernels/base/hash.h"
#include "kernels/base/log.h"

namespace drover {
namespace {

constexpr size_t kShortest = 8;
constexpr size_t kFileBytes = 1 << 20;
constexpr std::string_view kBlanks = " \t\r";

std::string_view trimmed(std::string_view text) {
  const size_t first = text.find_first_not_of(kBlanks);
  if (first == std::string_view::npos) return {};
  return text.substr(first, text.find_last_not_of(kBlanks) - first + 1);
}

bool is_visible(char c) { return c > ' ' && c <= '~'; }

void check(std::string_view key, const std::filesystem::path& file, size_t line) {
  if (!std::all_of(key.begin(), key.end(), is_visible)) {
    fail(Fault::bad_data, "{}:{}: a key is one word of visible ASCII characters: put each on a line of its own",
         file.string(), line);
  }
  if (key.size() < kShortest) {
    fail(Fault::bad_data,
         "{}:{}: a key of {} characters is too short: give it {} or more, as `openssl rand -hex 32` does",
         file.string(), line, key.size(), kShortest);
  }
}

}  // namespace

ApiKeys ApiKeys::read(const std::filesystem::path& file) {
  const std::string text = read_text(file, kFileBytes);
  struct stat status {};
  if (::stat(file.c_str(), &status) == 0 && (status.st_mode & S_IROTH) != 0) {
    log::warn("{} holds keys and can be read by everybody on this machine: chmod o-r {}", file.string(), file.string());
  }
  ApiKeys keys;
  std::string_view rest = text;
  for (size_t line = 1; !rest.empty(); ++line) {
    const size_t end = std::min(rest.find('\n'), rest.size());
    const std::string_view key = trimmed(rest.substr(0, end));
    rest.remove_prefix(std::min(end + 1, rest.size()));
    if (key.empty() || key.starts_with('#')) continue;
    check(key, file, line);
    keys.digests_.push_back(sha256_hex(key));
  }
  if (keys.digests_.empty()) fail(Fault::bad_data, "{}: there is no key in it: write one a line", file.string());
  return keys;
}

bool ApiKeys::allows_key(std::string_view key) const {
  const std::string digest = sha256_hex(key);
  int found = 0;
  for (const std::string& known : digests_) {
    found |= static_cast<int>(CRYPTO_memcmp(known.data(), digest.data(), digest.size()) == 0);
  }
  return found != 0;
}

bool ApiKeys::allows(std::string_view authorization) const {
  constexpr std::string_view kScheme = "bearer ";
  const std::string_view scheme = authorization.substr(0, kScheme.size());
  const auto same = [](char a, char b) { return a == (b >= 'A' && b <= 'Z' ? b - 'A' + 'a' : b); };
  if (!std::equal(kScheme.begin(), kScheme.end(), scheme.begin(), scheme.end(), same)) return false;
  return allows_key(trimmed(authorization.substr(kScheme.size())));
}

}  // namespace drover
