// Which tokens may come next in one answer: where it has to follow a grammar, for example. Every rank that shares the
// model has a copy, and the copies see the same tokens; those that choose are asked what may come.
#pragma once
#include <cstdint>
#include <span>

namespace drover {

class TokenFilter {
 public:
  virtual ~TokenFilter() = default;
  // Token t may come next where bit t%32 of word t/32 becomes 1. The words hold the model's vocabulary; what they held
  // before says nothing. Stop ids are tokens like others: one may come where the answer may end.
  virtual void allow(std::span<uint32_t> bits) = 0;
  // It was chosen, a stop id too. False: it may not come here, and nothing has changed; so it is where no token may.
  virtual bool accept(int32_t token) = 0;
};

}  // namespace drover
