// tokenizer.model as Meta writes it. Nothing but 128 000 lines is taken: an input that ends in a line "…" is its first
// lines, and the others are made up.
#include "tests/fuzz/words.h"

using namespace drover;

namespace {

constexpr int kTokens = 128'000;
constexpr std::string_view kRest = "…\n";

// The lines of tokens that nobody would write, by their rank: four bytes each.
void complete(std::string& text) {
  static const char* const digits = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
  for (int64_t rank = std::count(text.begin(), text.end(), '\n'); rank < kTokens; ++rank) {
    text += fmt::format("/{}{}{}AQ== {}\n", digits[rank & 63], digits[rank >> 6 & 63], digits[rank >> 12 & 63], rank);
  }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  std::string text(fuzz::text_of(data, size));
  if (text.ends_with(kRest)) {
    text.resize(text.size() - kRest.size());
    complete(text);
  }
  fuzz::written("tokenizer.model", text);
  return fuzz::accept({Fault::bad_data}, [&] { fuzz::use(Tokenizer::open(fuzz::folder())); });
}
