// Rates: measured calls come back, calls between them take what lies between, and beyond them nothing is made up.
#include "trainer/planning/rates.h"

#include <gtest/gtest.h>

#include <cmath>

namespace drover {
namespace {

RoughRates rough() {
  return {.name = "rough",
          .product = 1e12,
          .product_fp8 = 2e12,
          .attention = 5e11,
          .attention_backward = 4e11,
          .memory = 1e11,
          .call_seconds = 1e-6,
          .link = 1e10,
          .link_seconds = 1e-5,
          .network = 1e9,
          .network_seconds = 1e-4,
          .ranks_a_node = 8};
}

OpSample product(int64_t rows, int64_t in, int64_t out, double flops_per_second) {
  const int64_t flops = 2 * rows * in * out;
  return {.op = "linear",
          .dtype = DType::bf16,
          .format = Format::bf16,
          .a = {rows, in},
          .b = {out, in},
          .flops = flops,
          .bytes = 2 * (rows * in + in * out + rows * out),
          .seconds = static_cast<double>(flops) / flops_per_second};
}

OpCall call_of(const OpSample& s) {
  return {.op = s.op, .a = s.a, .b = s.b, .dtype = s.dtype, .format = s.format, .flops = s.flops, .bytes = s.bytes};
}

// Products get faster with their rows, and a little with their width.
double rate_of(int64_t rows, int64_t in) {
  return 1e11 * std::pow(static_cast<double>(rows) / 64, 0.3) * std::pow(static_cast<double>(in) / 512, 0.1);
}

std::vector<OpSample> grid() {
  std::vector<OpSample> samples;
  for (const int64_t rows : {64, 256, 1024, 4096}) {
    for (const int64_t in : {512, 1024, 2048}) samples.push_back(product(rows, in, 1536, rate_of(rows, in)));
  }
  return samples;
}

TEST(Rates, MeasuredCallsTakeWhatTheyTook) {
  const std::vector<OpSample> samples = grid();
  const Rates rates(rough(), samples, {});
  for (const OpSample& s : samples) EXPECT_NEAR(rates.seconds(call_of(s)) / s.seconds, 1, 0.02);
}

TEST(Rates, CallsBetweenThemTakeWhatLiesBetween) {
  const Rates rates(rough(), grid(), {});
  for (const int64_t rows : {100, 512, 700, 3000}) {
    for (const int64_t in : {576, 768, 1536}) {
      const OpSample s = product(rows, in, 1536, rate_of(rows, in));
      EXPECT_NEAR(rates.seconds(call_of(s)) / s.seconds, 1, 0.04) << rows << " rows, " << in;
    }
  }
}

TEST(Rates, NoRateIsBeyondThoseThatWereMeasured) {
  const Rates rates(rough(), grid(), {});
  const OpSample more = product(1 << 20, 8192, 1536, 1), less = product(1, 16, 1536, 1);
  EXPECT_GE(rates.seconds(call_of(more)), static_cast<double>(more.flops) / (rate_of(4096, 2048) * 1.001));
  EXPECT_LE(rates.seconds(call_of(less)), static_cast<double>(less.flops) / (rate_of(64, 512) * 0.999));
  EXPECT_DOUBLE_EQ(rates.best_product(), rate_of(4096, 2048));
}

TEST(Rates, AnotherWeightFormatTakesItsOwnSamplesAndElseItsOps) {
  std::vector<OpSample> samples = grid();
  OpSample coded = product(512, 1024, 1536, 1e10);
  coded.format = Format::nf4;
  samples.push_back(coded);
  const Rates rates(rough(), samples, {});
  EXPECT_NEAR(rates.seconds(call_of(coded)) / coded.seconds, 1, 1e-9);
  OpSample other = product(512, 1024, 1536, 1);
  other.format = Format::fp8;
  const double seconds = rates.seconds(call_of(other));
  EXPECT_GT(seconds, static_cast<double>(other.flops) / rate_of(4096, 2048));
  EXPECT_LT(seconds, static_cast<double>(other.flops) / 1e10 * 1.001);
}

TEST(Rates, OneSampleSaysTheRateOfItsOp) {
  const OpSample copy{.op = "copy", .dtype = DType::bf16, .a = {512, 512}, .bytes = 1 << 20, .seconds = 1e-4};
  const Rates rates(rough(), {copy}, {});
  OpCall twice = call_of(copy);
  twice.bytes *= 2, twice.a.rows *= 2;
  EXPECT_NEAR(rates.seconds(twice), 2e-4, 1e-10);
}

TEST(Rates, WithoutMeasurementsTheSlowerOfComputingAndMovingCounts) {
  const Rates rates{rough()};
  EXPECT_FALSE(rates.measured());
  EXPECT_DOUBLE_EQ(rates.seconds({.op = "linear", .a = {1, 1}, .b = {1, 1}, .flops = 2'000'000'000, .bytes = 8}), 2e-3);
  OpCall coded{.op = "linear", .a = {1, 1}, .b = {1000, 1000}, .format = Format::fp8, .products = Products::fp8};
  coded.flops = 2'000'000'000;
  EXPECT_DOUBLE_EQ(rates.seconds(coded), 1e-3);
  coded.products = Products::widened;  // a million weights, written and read as bf16
  EXPECT_DOUBLE_EQ(rates.seconds(coded), 2e-3 + 4e-5);
  EXPECT_DOUBLE_EQ(rates.seconds({.op = "linear", .a = {1, 1}, .b = {1, 1}, .flops = 8, .bytes = 1'000'000'000}), 1e-2);
  EXPECT_DOUBLE_EQ(rates.seconds({.op = "attention", .flops = 1'000'000'000}), 2e-3);
  EXPECT_DOUBLE_EQ(rates.seconds({.op = "attention_backward", .flops = 1'000'000'000}), 2.5e-3);
  EXPECT_DOUBLE_EQ(rates.seconds({.op = "add", .flops = 1'000'000'000'000, .bytes = 100}), 1e-6);
}

TEST(Rates, MessagesAreLinearBetweenMeasuredSizes) {
  const Rates rates(rough(), {},
                    {{"all_reduce", 2, 1000, 1e-5}, {"all_reduce", 2, 3000, 3e-5}, {"all_reduce", 4, 1000, 9e-5}});
  EXPECT_DOUBLE_EQ(rates.message_seconds("all_reduce", 2000, 2, false), 2e-5);
  EXPECT_DOUBLE_EQ(rates.message_seconds("all_reduce", 6000, 2, false), 6e-5);
  EXPECT_DOUBLE_EQ(rates.message_seconds("all_reduce", 10, 2, false), 1e-5);
  EXPECT_DOUBLE_EQ(rates.message_seconds("all_reduce", 10, 1, false), 0);
  // Eight ranks as four, but that each of a ring sends 2·7/8 of the bytes and not 2·3/4.
  EXPECT_DOUBLE_EQ(rates.message_seconds("all_reduce", 1000, 8, false), 9e-5 * 1.75 / 1.5);
}

// Ring over 4 ranks: a sum moves 2·3/4 of its bytes, a gather 3/4, a message all.
TEST(Rates, RoughMessagesAreOfARing) {
  const Rates rates{rough()};
  EXPECT_DOUBLE_EQ(rates.message_seconds("all_reduce", 1'000'000, 4, false), 1e-5 + 1.5e6 / 1e10);
  EXPECT_DOUBLE_EQ(rates.message_seconds("all_gather", 1'000'000, 4, false), 1e-5 + 0.75e6 / 1e10);
  EXPECT_DOUBLE_EQ(rates.message_seconds("exchange", 1'000'000, 2, true), 1e-4 + 1e6 / 1e9);
}

}  // namespace
}  // namespace drover
