// Rows, stores and batches: bad rows named, documents kept apart, every row dealt once, and an order that the seed decides.
#include "data/loader.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <fstream>
#include <set>

#include "data/rows.h"
#include "kernels/base/error.h"

namespace drover {
namespace {

struct TemporaryFile {
  fs::path path = fs::temp_directory_path() / fmt::format("drover-data-{}-{}", getpid(), counter++);
  static inline int counter = 0;
  ~TemporaryFile() { fs::remove(path); }
  void write(const std::string& text) const { std::ofstream(path, std::ios::binary) << text; }
};

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

TEST(Rows, AreReadWhateverTheLineEndings) {
  TemporaryFile file;
  file.write("\xEF\xBB\xBF{\"text\": \"a\"}\r\n\n  \n{\"messages\": [{\"role\": \"user\", \"content\": [{\"type\": \"text\", \"text\": \"b\"}]}]}");
  std::vector<Row> rows;
  read_rows(file.path, RowFormat::automatic, BadRows::error, [&](const Row& row) { rows.push_back(row); });
  ASSERT_EQ(rows.size(), 2u);
  EXPECT_EQ(rows[0].text, "a");
  EXPECT_EQ(rows[1].messages.at(0).content, "b");
  EXPECT_EQ(rows[1].line, 4);
}

TEST(Rows, BadOnesAreNamedOrSkipped) {
  const std::string deep(200, '[');
  for (const std::string& bad : {std::string("{\"text\": 3}"), std::string("{}"), std::string("[1]"), std::string("{\"messages\": []}"), std::string("{\"messages\": [{\"role\": \"user\"}]}"),
                                 std::string("{\"text\": \"x"), std::string("\xFF\xFE"), "{\"text\": " + deep, std::string("{\"text\": \"\xC0\xAF\"}")}) {
    TemporaryFile file;
    file.write("{\"text\": \"good\"}\n" + bad + "\n{\"text\": \"good\"}\n");
    try {
      read_rows(file.path, RowFormat::automatic, BadRows::error, [](const Row&) {});
      ADD_FAILURE() << bad;
    } catch (const Error& error) {
      EXPECT_EQ(error.code(), Exit::bad_data);
      EXPECT_NE(std::string(error.what()).find(file.path.string() + ":2:"), std::string::npos) << error.what();
    }
    const ReadReport report = read_rows(file.path, RowFormat::automatic, BadRows::skip, [](const Row&) {});
    EXPECT_EQ(report.rows, 2);
    EXPECT_EQ(report.skipped, 1);
  }
}

TEST(Store, SavesAndOpens) {
  TemporaryFile file;
  const TokenStore store = store_of({3, 5, 2, 9, 16, 7}, true);
  store.save(file.path);
  const TokenStore back = TokenStore::open(file.path);
  EXPECT_EQ(back.documents(), 6);
  EXPECT_EQ(back.rows(), store.rows());
  EXPECT_TRUE(TokenStore::matches(file.path, "test"));
  EXPECT_FALSE(TokenStore::matches(file.path, "another"));
  fs::resize_file(file.path, fs::file_size(file.path) / 2);
  EXPECT_FALSE(TokenStore::matches(file.path, "test"));
  EXPECT_THROW(TokenStore::open(file.path), Error);
}

TEST(Store, PackingKeepsEveryTokenAndTheLimit) {
  const TokenStore packed = store_of({3, 5, 2, 9, 16, 7, 2, 2}, true);
  EXPECT_LT(packed.rows(), 8);
  std::set<int32_t> seen;
  for (int64_t r = 0; r < packed.rows(); ++r) EXPECT_LE(packed.row_tokens(r), 16);
  for (int64_t d = 0; d < packed.documents(); ++d) {
    const Document doc = packed.document(d);
    EXPECT_EQ(doc.trained[0], 0);  // nothing precedes it
    seen.insert(doc.ids.begin(), doc.ids.end());
  }
  EXPECT_EQ(static_cast<int64_t>(seen.size()), packed.tokens());
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
    for (const MicroBatch& m : loader.load(loader.position_of(step)).micro_batches) most = std::max(most, static_cast<int64_t>(m.tokens.size()));
  }
  EXPECT_EQ(loader.largest_micro_batch(steps).tokens, most);
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
    EXPECT_EQ(error.code(), Exit::bad_data);
  }
}

}  // namespace
}  // namespace drover
