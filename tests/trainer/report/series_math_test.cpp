// Bins, means and axes: nothing of a series is lost to a picture but what lies between its least and its most.
#include "trainer/report/series_math.h"

#include <gmock/gmock.h>

#include <cmath>
#include <numeric>

#include "trainer/report/chart_axis.h"
#include "trainer/report/metrics_series.h"
#include "trainer/report/number_text.h"
#include "trainer/report/report_text.h"

namespace drover {
namespace {

using testing::Each;
using testing::ElementsAre;
using testing::Ge;
using testing::Le;

std::vector<double> steps(size_t count) {
  std::vector<double> x(count);
  std::iota(x.begin(), x.end(), 1.0);
  return x;
}

TEST(Binned, FewPointsStayThemselves) {
  const std::vector<double> y = {3, kHole, 1};
  const std::vector<Bin> bins = binned(steps(3), y, 10);
  ASSERT_EQ(bins.size(), 2u);
  EXPECT_EQ(bins[1].x, 3);
  EXPECT_EQ(bins[1].mean, 1);
  EXPECT_EQ(bins[1].count, 1);
}

TEST(Binned, ManyPointsKeepTheirLeastTheirMostAndTheirCount) {
  std::vector<double> y(100'000, 2);
  y[31'415] = 9, y[92'653] = -5, y[50'000] = kHole;
  const std::vector<Bin> bins = binned(steps(y.size()), y, 480);
  EXPECT_EQ(bins.size(), 480u);
  int64_t count = 0;
  double least = 2, most = 2, before = 0;
  for (const Bin& bin : bins) {
    count += bin.count, least = std::min(least, bin.min), most = std::max(most, bin.max);
    EXPECT_GT(bin.x, before);
    EXPECT_GE(bin.mean, bin.min);
    EXPECT_LE(bin.mean, bin.max);
    before = bin.x;
  }
  EXPECT_EQ(count, 99'999);
  EXPECT_EQ(least, -5);
  EXPECT_EQ(most, 9);
}

TEST(Binned, AResumedRunsGapMakesNoBin) {
  std::vector<double> x = steps(1000), y(1000, 1);
  for (size_t i = 500; i < 1000; ++i) x[i] += 9000;
  const std::vector<Bin> bins = binned(x, y, 100);
  EXPECT_LT(bins.size(), 20u);
  EXPECT_EQ(std::accumulate(bins.begin(), bins.end(), int64_t{0}, [](int64_t n, const Bin& b) { return n + b.count; }),
            1000);
}

TEST(Smoothed, IsTheMeanOfAConstantFromTheFirstOnAndKeepsHoles) {
  EXPECT_THAT(smoothed(std::vector<double>(50, 3), 20), Each(testing::DoubleNear(3, 1e-12)));
  const std::vector<double> y = smoothed(std::vector<double>{1, kHole, 2}, 1);
  EXPECT_EQ(y[0], 1);
  EXPECT_TRUE(std::isnan(y[1]));
  EXPECT_EQ(y[2], 2);
  const std::vector<double> two = smoothed(std::vector<double>{0, 1}, 3);  // weights 1/2 and 1/4, of 3/4
  EXPECT_DOUBLE_EQ(two[1], 2.0 / 3);
}

TEST(Figures, OfNothingAreHoles) {
  EXPECT_TRUE(std::isnan(median({})));
  EXPECT_TRUE(std::isnan(last_of(std::vector<double>{kHole})));
  EXPECT_EQ(median(std::vector<double>{5, kHole, 1, 3}), 3);
  EXPECT_EQ(last_of(std::vector<double>{5, 4, kHole}), 4);
}

TEST(Axes, HaveRoundTicksWithinThem) {
  const std::vector<double> ticks = ChartAxis({.least = 0.13, .most = 3.2, .empty = false}, 0, 100).ticks(5);
  EXPECT_THAT(ticks, ElementsAre(1, 2, 3));
  EXPECT_THAT(ChartAxis({.least = 0.5, .most = 150, .empty = false}, 0, 100, true).ticks(2), ElementsAre(1, 10, 100));
  EXPECT_THAT(ChartAxis({.least = 0.5, .most = 150, .empty = false}, 0, 100, true).ticks(9), Each(Ge(0.5)));
}

TEST(Axes, TakeOneValueAndNone) {
  const ChartAxis one({.least = 4, .most = 4, .empty = false}, 0, 100);
  EXPECT_DOUBLE_EQ(one.place(4), 50);
  EXPECT_THAT(one.ticks(5), Each(Le(4.4)));
  EXPECT_FALSE(ChartAxis({}, 0, 100).ticks(5).empty());
  EXPECT_LE(ChartAxis({.least = 1e17, .most = 1e17 + 16, .empty = false}, 0, 100).ticks(5).size(), 11u);
  const ChartAxis down({.least = 0, .most = 10, .empty = false}, 100, 0);
  EXPECT_DOUBLE_EQ(down.place(10), 0);
  EXPECT_DOUBLE_EQ(down.place(99), 0);  // what lies outside is drawn at the edge
}

TEST(Sparkline, RisesFromTheLeastToTheMost) {
  EXPECT_EQ(sparkline(std::vector<double>{1, 2, 3, 4, 5, 6, 7, 8}, 8), "▁▂▃▄▅▆▇█");
  EXPECT_EQ(sparkline(std::vector<double>{1, kHole, 8}, 8), "▁ █");
  EXPECT_EQ(sparkline(std::vector<double>{2}, 8), "▅");
  EXPECT_EQ(sparkline(std::vector<double>{kHole}, 8), "");
  EXPECT_EQ(sparkline(std::vector<double>(1000, 2), 3), "▅▅▅");
}

TEST(NumberText, IsShortAndSaysItsUnit) {
  EXPECT_EQ(plain(0.012345), "0.01235");
  EXPECT_EQ(plain(123456), "123456");
  EXPECT_EQ(plain(kHole), "–");
  EXPECT_EQ(bytes_text(1.5 * 1024 * 1024 * 1024), "1.50 GiB");
  EXPECT_EQ(seconds_text(200), "3:20 min");
  EXPECT_EQ(seconds_text(7500), "2:05 h");
  EXPECT_EQ(ratio_text(1, 0), "–");
  EXPECT_EQ(grouped(1234567), "1\u202F234\u202F567");
  EXPECT_EQ(grouped(123), "123");
}

}  // namespace
}  // namespace drover
