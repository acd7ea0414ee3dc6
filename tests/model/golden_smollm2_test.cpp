// The real SmolLM2-135M-Instruct against transformers: the way `drover generate` answers, from the directory's files to
// text.
#include "data/prompts.h"
#include "data/tokenizer.h"
#include "kernels/cpu/cpu_backend.h"
#include "model/generation/answers.h"
#include "tests/model/golden.h"
#include "tests/support/real_files.h"
#include "trainer/generation/inference.h"

namespace drover::golden {
namespace {

constexpr double kLogitBound = 1e-4;  // absolute, fp32

class GoldenSmolLM2 : public testing::Test {
 protected:
  void SetUp() override {
    directory_ = real_path("DROVER_SMOLLM2", "smollm2");
    ASSERT_FALSE(HasFailure());
    if (!directory_) GTEST_SKIP();
    expected_ = json("smollm2.json");
  }

  Inference& inference(DType dtype) {
    const InferenceSettings settings{
        .model = *directory_, .dtype = dtype, .batcher = {.sequences = 1}, .capacity_tokens = 64};
    return inference_.emplace(settings, mesh_, [](const Mesh& host) { return Device{make_cpu_backend(1), host}; });
  }

  // Of the golden prompt, the stored positions and columns. The cache gives a piece's last logits only: a piece ends at
  // each position.
  std::vector<float> logits(DType dtype) {
    const std::vector<int32_t> ids = expected_.at("ids");
    const size_t column_step = expected_.at("column_step");
    Decoder& decoder = inference(dtype).decoder();
    std::vector<float> kept;
    CachedSequence sequence;
    decoder.pool().reserve(sequence, static_cast<int64_t>(ids.size()));
    size_t begin = 0;
    for (const size_t position : expected_.at("positions")) {
      const Decoder::Input piece{.sequence = &sequence, .ids = std::span(ids).subspan(begin, position + 1 - begin)};
      const std::vector<float> row = decoder.append_for_logits({&piece, 1}).front();
      for (size_t column = 0; column < row.size(); column += column_step) kept.push_back(row[column]);
      begin = position + 1;
    }
    return kept;
  }

  std::optional<fs::path> directory_;
  Json expected_;
  const Tensors tensors_{"smollm2.safetensors"};
  Mesh mesh_ = make_self_mesh();
  std::optional<Inference> inference_;
};

TEST_F(GoldenSmolLM2, LogitsEqualTransformersInFp32) {
  const std::vector<float> got = logits(DType::f32);
  EXPECT_LE(largest_difference(got, tensors_.at("logits.fp32")), kLogitBound);
  EXPECT_LE(largest_difference(got, tensors_.at("logits.fp64")), kLogitBound);
  EXPECT_GE(norm(got), 100);
}

// Most of either error is one shift of all columns at a position, and three positions are few: the closer bound is on a
// passage, in tests/e2e.
TEST_F(GoldenSmolLM2, LogitsAreAboutAsCloseToDoubleInBf16) {
  const std::vector<float> exact = tensors_.at("logits.fp64");
  const double theirs = distance(tensors_.at("logits.bf16"), exact), ours = distance(logits(DType::bf16), exact);
  EXPECT_GT(theirs, 0);
  EXPECT_LE(ours, 2 * theirs) << ours / theirs << " times transformers' error";
}

TEST_F(GoldenSmolLM2, AnswersAQuestion) {
  const Json chat = expected_.at("chat");
  ASSERT_GE(chat.at("min_top2_margin").get<double>(), 1e-3);
  const Tokenizer tokenizer = Tokenizer::open(*directory_);
  EXPECT_EQ(tokenizer.encode(expected_.at("prompt").get<std::string>()),
            expected_.at("ids").get<std::vector<int32_t>>());
  const std::optional<ChatTemplate> chat_template = ChatTemplate::find(*directory_);
  ASSERT_TRUE(chat_template);
  const Request request{
      .ids = prompt_ids({{{"user", chat.at("question")}}, "the golden"}, tokenizer, chat_template, ""),
      .stop_ids = {2},
      .max_tokens = 20};
  EXPECT_EQ(request.ids, chat.at("prompt_ids").get<std::vector<int32_t>>());

  const Answer answer = answer_all(inference(DType::f32).batcher(), {request}).front();
  EXPECT_EQ(answer.ids, chat.at("ids").get<std::vector<int32_t>>());
  EXPECT_EQ(answer.finish, Finish::stop);
  EXPECT_EQ(tokenizer.decode(answer.ids), "The capital of France is Paris.");
}

}  // namespace
}  // namespace drover::golden
