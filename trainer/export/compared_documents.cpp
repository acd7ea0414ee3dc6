#include "trainer/export/compared_documents.h"

#include <algorithm>
#include <numeric>

#include "data/loader.h"

namespace drover {

namespace {

std::vector<int64_t> rows_of(const Recipe& recipe, const PreparedData& data) {
  if (data.validation) {
    std::vector<int64_t> rows(static_cast<size_t>(data.validation->rows()));
    std::iota(rows.begin(), rows.end(), 0);
    return rows;
  }
  const Loader loader(data.train, {.micro_batch_size = recipe.train.micro_batch_size,
                                   .global_batch_size = recipe.train.global_batch_size,
                                   .shuffle = recipe.data.shuffle,
                                   .seed = static_cast<uint64_t>(recipe.train.seed),
                                   .dp_rank = 0,
                                   .dp_size = 1});
  return loader.rows_of({0, 0});
}

}  // namespace

std::string rows_compared(const Recipe& recipe) {
  const Validation& v = recipe.data.validation;
  return v.files.empty() && v.share <= 0 ? "training" : "validation";
}

TokenStore compared_documents(const Recipe& recipe, const PreparedData& data) {
  const TokenStore& store = data.validation ? *data.validation : data.train;
  const int64_t longest = std::max(data.train.longest_document(), store.longest_document()) - 1;
  TokenStore some;
  for (const int64_t row : rows_of(recipe, data)) {
    const auto [first, last] = store.row(row);
    for (int64_t d = first; d < last; ++d) {
      const Document document = store.document(d);
      const int64_t room = std::min(longest, kComparedTokens - some.tokens());
      const size_t tokens = std::min(document.ids.size(), static_cast<size_t>(std::max<int64_t>(room, 0)));
      const auto trained = document.trained.first(tokens);
      if (std::ranges::find(trained, uint8_t{1}) != trained.end())
        some.add_document(document.ids.first(tokens), trained, 1);
    }
  }
  some.make_rows(false, kComparedTokens);
  return some;
}

}  // namespace drover
