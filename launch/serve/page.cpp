#include "launch/serve/page.h"

#include <openssl/evp.h>
#include <openssl/sha.h>

#include <string_view>

#include "kernels/base/require.h"

namespace drover {

extern const char* const kPageText;  // page.html, by CMakeLists.txt

namespace {

// What stands between the page's only <name> and </name>.
std::string_view element(std::string_view page, const std::string& name) {
  const std::string opening = "<" + name + ">", closing = "</" + name + ">";
  const size_t begin = page.find(opening), end = page.find(closing);
  require(begin != page.npos && end != page.npos && page.find(opening, end) == page.npos,
          "the page has one style element and one script");
  return page.substr(begin + opening.size(), end - begin - opening.size());
}

// As a policy names a text: 'sha256-' and the digest in base64.
std::string source_of(std::string_view text) {
  unsigned char digest[SHA256_DIGEST_LENGTH];
  SHA256(reinterpret_cast<const unsigned char*>(text.data()), text.size(), digest);
  char base64[4 * (SHA256_DIGEST_LENGTH + 2) / 3 + 1];
  EVP_EncodeBlock(reinterpret_cast<unsigned char*>(base64), digest, SHA256_DIGEST_LENGTH);
  return std::string("'sha256-") + base64 + "'";
}

}  // namespace

HttpResponse page_response() {
  const std::string_view page = kPageText;
  const std::string policy = "default-src 'none'; script-src " + source_of(element(page, "script")) + "; style-src " +
                             source_of(element(page, "style")) +
                             "; img-src data:; connect-src 'self'; base-uri 'none'; form-action 'none'; "
                             "frame-ancestors 'none'";
  return {.status = 200,
          .type = "text/html; charset=utf-8",
          .body = std::string(page),
          .headers = {{"Content-Security-Policy", policy},
                      {"X-Content-Type-Options", "nosniff"},
                      {"Referrer-Policy", "no-referrer"},
                      {"Cache-Control", "no-cache"}}};
}

}  // namespace drover
