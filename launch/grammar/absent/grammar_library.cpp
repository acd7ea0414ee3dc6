#include "launch/grammar/grammar_library.h"

#include "kernels/base/error.h"

namespace drover {

struct GrammarLibrary::State {};

GrammarLibrary::GrammarLibrary(const std::vector<std::string>&) {}
GrammarLibrary::~GrammarLibrary() = default;

std::string GrammarLibrary::name() { return {}; }

std::shared_ptr<TokenFilter> GrammarLibrary::filter(const std::string&, std::span<const int32_t>) {
  fail(Fault::usage,
       "this build has no xgrammar, which holds answers to JSON, schemas and tools; run launch/grammar-library and "
       "build again");
}

}  // namespace drover
