// The sample of log-probabilities that an adapter keeps.
#include "trainer/export/logprob_sample.h"

#include <gtest/gtest.h>

#include "data/token_store.h"
#include "tests/base/scratch_directory.h"

namespace drover {
namespace {

TokenStore store_of(int64_t documents, int32_t tokens) {
  TokenStore store;
  for (int64_t d = 0; d < documents; ++d) {
    std::vector<int32_t> ids;
    std::vector<uint8_t> trained;
    for (int32_t t = 0; t < tokens; ++t) ids.push_back(100'000 + t), trained.push_back(t % 2 == 0 ? 1 : 0);
    store.add_document(ids, trained, 1);
  }
  store.make_rows(false, tokens);
  return store;
}

TEST(LogprobSample, ComesBack) {
  const TokenStore store = store_of(2, 5);  // trained: 0, 2 and 4; nothing is known of 0
  const std::vector<float> logprobs = {-0.123456f, -2, -3.5f, -0.000001f};
  ScratchDirectory dir;
  EXPECT_FALSE(read_sample(dir.path()));
  write_text(dir / kSampleFile, sample_json(store, logprobs));
  const LogprobSample sample = read_sample(dir.path()).value();
  ASSERT_EQ(sample.documents.size(), 2u);
  EXPECT_EQ(sample.documents[1].ids, (std::vector<int32_t>{100'000, 100'001, 100'002, 100'003, 100'004}));
  EXPECT_EQ(sample.documents[1].trained, (std::vector<int64_t>{2, 4}));
  ASSERT_EQ(sample.logprobs.size(), 4u);
  for (size_t i = 0; i < 4; ++i) EXPECT_NEAR(sample.logprobs[i], logprobs[i], 5.1e-6);
  EXPECT_EQ(sample.longest(), 5u);
}

TEST(LogprobSample, IsBounded) {
  const TokenStore store = store_of(40, 512);
  const std::vector<float> logprobs(40 * 255, -12.34567f);
  const std::string text = sample_json(store, logprobs);
  EXPECT_LE(text.size(), kSampleBytes);
  const LogprobSample sample = parse_sample(text, "x");
  EXPECT_GT(sample.documents.size(), 5u);
  EXPECT_LT(sample.documents.size(), 40u);
  EXPECT_EQ(sample.logprobs.size(), sample.documents.size() * 255);
}

TEST(LogprobSample, BrokenOnesAreRefused) {
  for (const char* text : {"{", "[]", R"({"documents": 3})", R"({"documents": [{"ids": [1, 2], "trained": [1]}]})",
                           R"({"documents": [{"ids": [1, 2], "trained": [2], "logprobs": [0]}]})",
                           R"({"documents": [{"ids": [1, 2], "trained": [0], "logprobs": [0]}]})",
                           R"({"documents": [{"ids": [1, 2, 3], "trained": [2, 2], "logprobs": [0, 0]}]})",
                           R"({"documents": [{"ids": [1, 2], "trained": [1], "logprobs": [0, 0]}]})",
                           R"({"documents": [{"ids": ["a"], "trained": [], "logprobs": []}]})"})
    expect_error(Fault::bad_data, {"logprobs"}, [&] { parse_sample(text, "logprobs.json"); });
}

}  // namespace
}  // namespace drover
