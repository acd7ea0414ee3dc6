// Batches: documents kept apart, every row dealt once, and an order that the seed decides.
#include "data/loader.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <map>
#include <set>

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

// Two sources of 10 and 4 documents, each a row.
TokenStore two_sources(std::vector<double> repeats, bool packing = false) {
  TokenStore store;
  for (int32_t d = 0; d < 14; ++d)
    store.add_document(std::vector<int32_t>(3, d), std::vector<uint8_t>(3, 1), 1, Origin{d, d < 10 ? 0 : 1});
  store.set_repeats(std::move(repeats));
  store.make_rows(packing, 6);
  return store;
}

TEST(Repeats, AFractionTakesOthersInEveryEpochAndAWholeAll) {
  const TokenStore store = two_sources({0.3, 2.5});
  std::set<std::vector<int64_t>> taken;
  for (int64_t epoch = 0; epoch < 6; ++epoch) {
    std::map<int64_t, int> times;
    for (const int64_t row : rows_in_epoch(store, 7, epoch)) ++times[row];
    std::vector<int64_t> first;
    int second = 0;
    for (const auto& [row, n] : times) {
      if (row < 10) {
        first.push_back(row);
        EXPECT_EQ(n, 1);
      } else {
        second += n;
        EXPECT_TRUE(n == 2 || n == 3);
      }
    }
    EXPECT_EQ(first.size(), 3u);
    EXPECT_EQ(second, 10);
    EXPECT_EQ(times.size(), 3u + 4u);
    taken.insert(first);
    EXPECT_EQ(rows_in_epoch(store, 7, epoch), rows_in_epoch(store, 7, epoch));
  }
  EXPECT_GE(taken.size(), 5u) << "each epoch draws anew";
  EXPECT_NE(rows_in_epoch(store, 7, 0), rows_in_epoch(store, 8, 0));
  EXPECT_EQ(rows_in_epoch(two_sources({0.01, 1}), 7, 0).size(), 1u + 4u) << "one at least";
  // Over many epochs every row comes as often as the others.
  std::map<int64_t, int> all;
  for (int64_t epoch = 0; epoch < 1000; ++epoch)
    for (const int64_t row : rows_in_epoch(store, 7, epoch)) ++all[row];
  for (int64_t row = 0; row < 10; ++row) EXPECT_NEAR(all[row], 300, 60) << row;
}

TEST(Repeats, TheEpochIsTheirRowsInAnyOrderAndOnAnyMesh) {
  const TokenStore store = two_sources({0.5, 3});
  const Loader loader(store, {2, 4, true, 3, 0, 1});
  ASSERT_EQ(loader.steps_per_epoch(), 5);  // 5 + 12 rows
  for (int64_t epoch = 0; epoch < 3; ++epoch) {
    std::vector<int64_t> met, expected = rows_in_epoch(store, 3, epoch);
    for (int64_t step = 0; step < 5; ++step) {
      const std::vector<int64_t> rows = loader.rows_of({epoch, step});
      met.insert(met.end(), rows.begin(), rows.end());
      const Batch all = loader.load({epoch, step});
      int64_t tokens = 0;
      for (int rank = 0; rank < 2; ++rank) {
        for (const MicroBatch& m : Loader(store, {2, 4, true, 3, rank, 2}).load({epoch, step}).micro_batches) {
          EXPECT_EQ(m.tokens, all.micro_batches.at(static_cast<size_t>(m.index)).tokens);
          tokens += static_cast<int64_t>(m.tokens.size());
        }
      }
      EXPECT_EQ(tokens, all.tokens);
    }
    EXPECT_NE(met, expected) << "shuffled";
    std::sort(met.begin(), met.end());
    std::sort(expected.begin(), expected.end());
    EXPECT_EQ(met, expected);
  }
  const std::vector<int64_t> unshuffled = rows_in_epoch(store, 3, 1);
  EXPECT_EQ(Loader(store, {2, 4, false, 3, 0, 1}).rows_of({1, 0}),
            (std::vector<int64_t>(unshuffled.begin(), unshuffled.begin() + 4)));
}

TEST(Repeats, AreThoseOfPackedRowsOfOneSourceEach) {
  const TokenStore store = two_sources({0.4, 2}, true);
  ASSERT_EQ(store.rows(), 5 + 2);
  for (int64_t row = 0; row < store.rows(); ++row) {
    const auto [first, last] = store.row(row);
    for (int64_t d = first; d < last; ++d) EXPECT_EQ(store.document(d).origin.source, row < 5 ? 0 : 1);
  }
  EXPECT_EQ(rows_in_epoch(store, 1, 0).size(), 2u + 4u);
  // All of them once: rows are packed over sources, as if there were one.
  EXPECT_TRUE(two_sources({1, 1}, true).repeats().empty());
}

TEST(Repeats, TheLargestMicroBatchIsOfAllEpochs) {
  TokenStore store;
  for (int32_t d = 0; d < 20; ++d) {
    const size_t length = d == 13 ? 9 : 3;
    store.add_document(std::vector<int32_t>(length, d), std::vector<uint8_t>(length, 1), 1, Origin{d, 0});
  }
  store.set_repeats({0.1});
  store.make_rows(false, 16);
  const Loader loader(store, {1, 2, false, 3, 0, 1});
  EXPECT_EQ(loader.steps_per_epoch(), 1);
  EXPECT_EQ(loader.largest_micro_batch(100).tokens, 9);
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
