// The text that is written, character by character; the same metric under the same labels; many threads.
#include "launch/http/metrics.h"

#include <gtest/gtest.h>

#include <cmath>
#include <thread>

#include "kernels/base/error.h"

namespace drover {
namespace {

TEST(Metrics, AreWrittenAsTheFormatHasThem) {
  Metrics metrics;
  metrics.counter("requests_total", "Requests\nin \\ \"all\".", {{"path", "/a\"b\\c\nd"}, {"code", "200"}}).add();
  metrics.counter("requests_total", "", {{"path", "/"}}).add(2.5);
  metrics.gauge("running", "Now.").set(3);
  metrics.gauge("running", "Now.").add(-4);
  metrics.gauge("odd", "Of all kinds.", {{"k", "nan"}}).set(std::nan(""));
  metrics.gauge("odd", "", {{"k", "inf"}}).set(INFINITY);
  metrics.gauge("odd", "", {{"k", "less"}}).set(-INFINITY);
  Histogram& seconds = metrics.histogram("seconds", "How long.", {0.1, 1, 10}, {{"verb", "x"}});
  for (const double value : {0.05, 0.1, 0.5, 100.0}) seconds.observe(value);
  EXPECT_EQ(metrics.text(), R"(# HELP requests_total Requests\nin \\ "all".
# TYPE requests_total counter
requests_total{path="/"} 2.5
requests_total{path="/a\"b\\c\nd",code="200"} 1
# HELP odd Of all kinds.
# TYPE odd gauge
odd{k="inf"} +Inf
odd{k="less"} -Inf
odd{k="nan"} NaN
# HELP running Now.
# TYPE running gauge
running -1
# HELP seconds How long.
# TYPE seconds histogram
seconds_bucket{verb="x",le="0.1"} 2
seconds_bucket{verb="x",le="1"} 3
seconds_bucket{verb="x",le="10"} 3
seconds_bucket{verb="x",le="+Inf"} 4
seconds_sum{verb="x"} 100.65
seconds_count{verb="x"} 4
)");
}

TEST(Metrics, AreTheSameUnderTheSameLabels) {
  Metrics metrics;
  Counter& one = metrics.counter("a", "b", {{"c", "d"}});
  EXPECT_EQ(&one, &metrics.counter("a", "b", {{"c", "d"}}));
  EXPECT_NE(&one, &metrics.counter("a", "b", {{"c", "e"}}));
  EXPECT_EQ(metrics.histogram("h", "", {}).seen().counts.size(), 1);
}

TEST(Metrics, ThatTheFormatDoesNotAllowBreakAnInvariant) {
  Metrics metrics;
  metrics.counter("a:b_1", "");
  for (const char* name : {"", "1a", "a-b", "a b", "\u00e4"}) EXPECT_THROW(metrics.counter(name, ""), Error) << name;
  for (const char* name : {"", "a:b", "le", "1"}) EXPECT_THROW(metrics.counter("a", "", {{name, ""}}), Error) << name;
  EXPECT_THROW(metrics.gauge("a:b_1", ""), Error);
  EXPECT_THROW(metrics.histogram("h", "", {2, 1}), Error);
  EXPECT_THROW(metrics.counter("a:b_1", "").add(-1), Error);
}

TEST(Metrics, CountOnAllThreads) {
  Metrics metrics;
  std::vector<std::thread> threads;
  for (int t = 0; t < 4; ++t) {
    threads.emplace_back([&] {
      for (int i = 0; i < 2000; ++i) {
        metrics.counter("c", "").add();
        metrics.gauge("g", "").add(0.5);
        metrics.histogram("h", "", {1}).observe(i % 2 * 2);
        if (i % 100 == 0) metrics.text();
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(metrics.counter("c", "").value(), 8000);
  EXPECT_EQ(metrics.gauge("g", "").value(), 4000);
  EXPECT_EQ(metrics.histogram("h", "", {1}).seen().counts, (std::vector<uint64_t>{4000, 4000}));
}

}  // namespace
}  // namespace drover
