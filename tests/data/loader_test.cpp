// Batches: documents kept apart, every row dealt once, and an order that the seed decides.
#include "data/loader.h"

#include <gtest/gtest.h>

#include <algorithm>

#include "kernels/base/error.h"

namespace drover {
namespace {

TokenStore store_of(const std::vector<int64_t>& lengths, bool packing, int64_t max_length = 16) {
  TokenStore store;
  int32_t token = 0;
  for (int64_t n : lengths) {
    std::vector<int32_t> ids;
    std::vector<uint8_t> trained;
    for (int64_t i = 0; i < n; ++i) {
      ids.push_back(token++);
      trained.push_back(i % 2 == 0 ? 1 : 0);
    }
    if (n == 2) trained[1] = 1;
    store.add_document(ids, trained, 1);
  }
  store.set_identity("test");
  store.make_rows(packing, max_length);
  return store;
}

TEST(Batches, LabelsStayInTheirDocument) {
  const TokenStore store = store_of({3, 5}, true);
  const std::vector<int64_t> rows = {0};
  const MicroBatch m = micro_batch_of(store, rows, 0);
  EXPECT_EQ(m.positions, (std::vector<int32_t>{0, 1, 2, 0, 1, 2, 3, 4}));
  EXPECT_EQ(m.labels, (std::vector<int32_t>{-1, 2, -1, -1, 5, -1, 7, -1}));
  ASSERT_EQ(m.spans.size(), 2u);
  EXPECT_EQ(m.spans[1].begin, 3);
}

TEST(Batches, EveryRowIsDealtOnceOnAnyMesh) {
  const TokenStore store = store_of(std::vector<int64_t>(23, 4), false);
  const Loader whole(store, {2, 6, true, 1, 0, 1});
  for (int dp : {1, 2, 3, 4}) {
    for (int64_t step = 0; step < whole.steps_per_epoch(); ++step) {
      const Batch all = whole.load({0, step});
      int64_t next = 0;
      for (int rank = 0; rank < dp; ++rank) {
        const Batch part = Loader(store, {2, 6, true, 1, rank, dp}).load({0, step});
        EXPECT_EQ(part.total, all.total);
        EXPECT_EQ(part.weight_sum, all.weight_sum);
        for (const MicroBatch& m : part.micro_batches) {
          EXPECT_EQ(m.index, next);
          EXPECT_EQ(m.tokens, all.micro_batches[static_cast<size_t>(next++)].tokens);
        }
      }
      EXPECT_EQ(next, all.total);
    }
  }
}

TEST(Batches, OrderIsAPermutationOfSeedAndEpoch) {
  const std::vector<int64_t> a = permutation(100, 1, 0);
  std::vector<int64_t> sorted = a;
  std::sort(sorted.begin(), sorted.end());
  for (int64_t i = 0; i < 100; ++i) EXPECT_EQ(sorted[static_cast<size_t>(i)], i);
  EXPECT_EQ(a, permutation(100, 1, 0));
  EXPECT_NE(a, permutation(100, 1, 1));
  EXPECT_NE(a, permutation(100, 2, 0));
}

TEST(Batches, TheLargestMicroBatchIsTheLargest) {
  const TokenStore store = store_of({3, 16, 2, 9, 4, 7, 12, 2, 5}, false);
  const Loader loader(store, {2, 4, true, 3, 0, 1});
  const int64_t steps = 3 * loader.steps_per_epoch();
  int64_t most = 0;
  for (int64_t step = 0; step < steps; ++step) {
    for (const MicroBatch& m : loader.load(loader.position_of(step)).micro_batches)
      most = std::max(most, static_cast<int64_t>(m.tokens.size()));
  }
  EXPECT_EQ(loader.largest_micro_batch(steps).tokens, most);
  // One row at a time, or in order, the first epoch holds the largest.
  EXPECT_EQ(Loader(store, {1, 4, true, 3, 0, 1}).largest_micro_batch(int64_t{1} << 40).tokens, 16);
  EXPECT_EQ(Loader(store, {2, 4, false, 3, 0, 1}).largest_micro_batch(int64_t{1} << 40).tokens, 3 + 16);
  EXPECT_EQ(Loader(store, {1, 4, false, 3, 0, 1}).largest_micro_batch(1).tokens, 16);
}

TEST(Batches, DependOnThePositionAlone) {
  const TokenStore store = store_of({3, 16, 2, 9, 4, 7, 12, 2, 5, 6, 3}, false);
  const LoaderSettings settings{2, 4, true, 3, 0, 1};
  const Loader loader(store, settings);
  for (const StreamPosition p : {StreamPosition{2, 1}, {0, 0}, {2, 0}, {0, 2}, {2, 1}, {0, 0}}) {
    EXPECT_EQ(loader.rows_of(p), Loader(store, settings).rows_of(p)) << p.epoch << ' ' << p.step;
  }
  EXPECT_EQ(loader.position_of(2), (StreamPosition{0, 2}));
  EXPECT_EQ(loader.position_of(3), (StreamPosition{1, 0}));
  EXPECT_EQ(loader.position_of(7), (StreamPosition{2, 1}));
}

TEST(Batches, AnEpochMeetsEveryRowOnceAndEndsPartially) {
  const TokenStore store = store_of(std::vector<int64_t>(11, 3), false);
  for (const bool shuffle : {true, false}) {
    const Loader loader(store, {2, 4, shuffle, 3, 0, 1});
    ASSERT_EQ(loader.steps_per_epoch(), 3);
    std::vector<int64_t> met;
    for (int64_t step = 0; step < 3; ++step) {
      const std::vector<int64_t> rows = loader.rows_of({1, step});
      EXPECT_EQ(rows.size(), step < 2 ? 4u : 3u);
      met.insert(met.end(), rows.begin(), rows.end());
    }
    EXPECT_EQ(std::is_sorted(met.begin(), met.end()), !shuffle);
    std::sort(met.begin(), met.end());
    for (int64_t row = 0; row < 11; ++row) EXPECT_EQ(met.at(static_cast<size_t>(row)), row);
  }
}

// Counting every (token, label) pair of all ranks' shares: an evaluation's mean is over each target once.
TEST(Batches, AnOrderedPassCountsEachTargetOnceAtAnyDp) {
  const TokenStore store = store_of({3, 16, 2, 9, 4, 7, 12, 2, 5, 6, 3}, false);
  std::vector<int32_t> targets;
  for (int64_t d = 0; d < store.documents(); ++d) {
    const Document doc = store.document(d);
    for (size_t i = 0; i < doc.ids.size(); ++i) {
      if (doc.trained[i]) targets.push_back(doc.ids[i]);
    }
  }
  for (int dp : {1, 2, 3, 4, 7}) {
    for (int64_t micro : {1, 2, 3}) {
      std::vector<int32_t> counted;
      double weight = 0;
      for (int64_t step = 0; step < 2; ++step) {
        for (int rank = 0; rank < dp; ++rank) {
          const Batch batch = Loader(store, {micro, 6, false, 0, rank, dp}).load({0, step});
          if (rank == 0) weight += batch.weight_sum;
          for (const MicroBatch& m : batch.micro_batches) {
            std::copy_if(m.labels.begin(), m.labels.end(), std::back_inserter(counted),
                         [](int32_t label) { return label >= 0; });
          }
        }
      }
      EXPECT_EQ(counted, targets) << dp << ' ' << micro;  // in order, too
      EXPECT_EQ(weight, static_cast<double>(targets.size()));
    }
  }
}

TEST(Batches, RanksWithoutRowsStillKnowTheWholeBatch) {
  const TokenStore store = store_of({3, 4}, false);
  const Batch none = Loader(store, {2, 8, true, 1, 0, 4}).load({0, 0}),
              one = Loader(store, {2, 8, true, 1, 3, 4}).load({0, 0});
  EXPECT_TRUE(none.micro_batches.empty());
  EXPECT_EQ(one.micro_batches.size(), 1u);
  for (const Batch& batch : {none, one}) {
    EXPECT_EQ(batch.total, 1);
    EXPECT_EQ(batch.tokens, 7);
    EXPECT_EQ(batch.trained_tokens, 2);
  }
}

TEST(Batches, WithoutATrainedTokenAreRefused) {
  TokenStore store;
  const std::vector<int32_t> ids = {1, 2, 3};
  store.add_document(ids, std::vector<uint8_t>{0, 0, 0}, 1);
  store.make_rows(false, 16);
  try {
    Loader(store, {1, 1, false, 1, 0, 1}).load({0, 0});
    FAIL();
  } catch (const Error& error) {
    EXPECT_EQ(error.fault(), Fault::bad_data);
    EXPECT_NE(std::string(error.what()).find("rows 0"), std::string::npos) << error.what();
  }
}

}  // namespace
}  // namespace drover
