// Figures of a program in the text format 0.0.4 that Prometheus reads (prometheus.io, "Exposition formats"). Any
// thread.
#pragma once
#include <atomic>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace drover {

class Counter {  // only ever more
 public:
  void add(double amount = 1);
  double value() const { return value_; }

 private:
  std::atomic<double> value_{0};
};

class Gauge {
 public:
  void set(double value) { value_ = value; }
  void add(double amount) { value_ += amount; }
  double value() const { return value_; }

 private:
  std::atomic<double> value_{0};
};

class Histogram {
 public:
  explicit Histogram(std::vector<double> bounds);
  void observe(double value);

  struct Seen {
    std::vector<uint64_t> counts;  // of values up to each bound and above the one before; then of those above all
    double sum = 0;
  };
  Seen seen() const;
  const std::vector<double>& bounds() const { return bounds_; }

 private:
  const std::vector<double> bounds_;  // ascending
  mutable std::mutex mutex_;
  Seen seen_;
};

class Metrics {
 public:
  using Labels = std::vector<std::pair<std::string, std::string>>;
  static constexpr std::string_view kType = "text/plain; version=0.0.4; charset=utf-8";

  // One for each name and labels: asked for again it is the same. They live as long as this. A name has one kind, and
  // its help is that of the first call.
  Counter& counter(const std::string& name, const std::string& help, const Labels& labels = {});
  Gauge& gauge(const std::string& name, const std::string& help, const Labels& labels = {});
  Histogram& histogram(const std::string& name, const std::string& help, std::vector<double> bounds,
                       const Labels& labels = {});

  std::string text() const;

 private:
  template <typename T>
  struct Family {
    std::string help;
    std::map<std::string, std::unique_ptr<T>> series;  // by their labels as they are written, without braces
  };
  template <typename T>
  using Families = std::map<std::string, Family<T>>;

  bool known(const std::string& name) const;
  template <typename T, typename... Args>
  T& find(Families<T>& families, const std::string& name, const std::string& help, const Labels& labels,
          Args&&... args);

  mutable std::mutex mutex_;
  Families<Counter> counters_;
  Families<Gauge> gauges_;
  Families<Histogram> histograms_;
};

}  // namespace drover
