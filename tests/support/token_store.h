#pragma once
#include <vector>

#include "data/token_store.h"

namespace drover {

// Of all documents, one after the other.
inline std::vector<int32_t> ids_of(const TokenStore& store) {
  std::vector<int32_t> ids;
  store.each_document([&](const Document& d) { ids.insert(ids.end(), d.ids.begin(), d.ids.end()); });
  return ids;
}

}  // namespace drover
