// Which documents are compared: the first of validation, short enough, and the same at every asking.
#include "trainer/export/compared_documents.h"

#include <gtest/gtest.h>

#include "tests/support/token_store.h"

namespace drover {
namespace {

TokenStore store_of(std::initializer_list<int> lengths) {
  TokenStore store;
  int32_t next = 0;
  for (const int length : lengths) {
    std::vector<int32_t> ids;
    for (int i = 0; i < length; ++i) ids.push_back(next++);
    std::vector<uint8_t> trained(ids.size(), 0);
    trained.back() = 1;
    if (length > 4) trained[2] = 1;
    store.add_document(ids, trained, 3);
  }
  store.make_rows(false, 4096);
  return store;
}

Recipe plain() {
  Recipe recipe;
  recipe.train.global_batch_size = 2;
  recipe.data.validation.files = {{"v.jsonl"}};
  return recipe;
}

TEST(ComparedDocuments, AreTheFirstOfValidation) {
  const PreparedData data{.train = store_of({9}), .validation = store_of({5, 3, 8}), .prompts = {}};
  const TokenStore some = compared_documents(plain(), data);
  ASSERT_EQ(some.documents(), 3);
  EXPECT_EQ(some.rows(), 3);
  EXPECT_EQ(some.document(2).ids[0], 8);
  EXPECT_EQ(some.trained_tokens(0, 3), 5);
  EXPECT_EQ(some.document(1).weight, 1);
  EXPECT_EQ(rows_compared(plain()), "validation");
}

TEST(ComparedDocuments, LeaveThePositionOfAnAnswer) {
  const PreparedData data{.train = store_of({6}), .validation = store_of({6, 3, 2}), .prompts = {}};
  const TokenStore some = compared_documents(plain(), data);
  EXPECT_EQ(some.longest_document(), 5);
  EXPECT_EQ(some.documents(), 3);
  EXPECT_EQ(some.trained_tokens(0, 3), 3);  // the last of the first is cut off
  const PreparedData shortest{.train = store_of({2}), .validation = store_of({2, 2}), .prompts = {}};
  EXPECT_EQ(compared_documents(plain(), shortest).documents(), 0);
}

TEST(ComparedDocuments, AreBounded) {
  const PreparedData data{.train = store_of({9}), .validation = store_of({300, 150, 300, 50}), .prompts = {}};
  const TokenStore some = compared_documents(plain(), data);
  EXPECT_EQ(some.tokens(), 299 + 150 + (kComparedTokens - 449));
  EXPECT_EQ(some.documents(), 3);
}

TEST(ComparedDocuments, AreOfTheFirstStepWithoutValidation) {
  Recipe recipe = plain();
  recipe.data.validation = {};
  const PreparedData data{.train = store_of({7, 7, 7, 7, 9}), .validation = {}, .prompts = {}};
  const TokenStore some = compared_documents(recipe, data), again = compared_documents(recipe, data);
  EXPECT_EQ(some.documents(), 2);
  EXPECT_EQ(ids_of(some), ids_of(again));
  recipe.train.seed = 7;
  EXPECT_NE(ids_of(some), ids_of(compared_documents(recipe, data)));
  EXPECT_EQ(rows_compared(recipe), "training");
}

}  // namespace
}  // namespace drover
