// Threads change no byte of a linear that is quantised for a file, and nothing of what is said of it.
#include "trainer/export/quantised_linear.h"

#include <gtest/gtest.h>

#include "model/dense_pieces.h"
#include "tests/support/made_up.h"

namespace drover {
namespace {

const ParamSpec kSpec{
    .name = "model.layers.0.mlp.up_proj.weight", .rows = 1300, .cols = 448, .split = Split::output, .layer = 0};

struct Written {
  std::vector<std::byte> bytes;
  double error = 0;
  bool operator==(const Written&) const = default;
};

Written written(QuantisedLinear& linear) {
  Written result;
  for (const TensorSpec& tensor : linear.tensors()) {
    linear.write(tensor.name, [&](const void* data, int64_t bytes) {
      const auto* from = static_cast<const std::byte*>(data);
      result.bytes.insert(result.bytes.end(), from, from + bytes);
    });
  }
  result.error = linear.error().value();
  return result;
}

TEST(QuantisedLinear, IsTheSameOfAnyNumberOfThreads) {
  ASSERT_GT(kSpec.rows * kSpec.cols, 2 * kFloatsOfAThread) << "there are several pieces";
  VariedWeights drawn(5, 0.15f, 0.5f);
  const Written fp8 = written(*fp8_linear(drawn, kSpec)), nf4 = written(*nf4_linear(drawn, kSpec, StoredType::bf16));
  EXPECT_GT(fp8.error, 0);
  EXPECT_GT(nf4.error, fp8.error);
  for (const int threads : {2, 7}) {
    EXPECT_TRUE(written(*fp8_linear(drawn, kSpec, threads)) == fp8) << threads;
    EXPECT_TRUE(written(*nf4_linear(drawn, kSpec, StoredType::bf16, threads)) == nf4) << threads;
  }
}

}  // namespace
}  // namespace drover
