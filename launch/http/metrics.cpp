#include "launch/http/metrics.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <iterator>

#include "kernels/base/require.h"

namespace drover {
namespace {

bool is_name(std::string_view text, std::string_view also) {
  const auto letter = [&](char c) {
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || also.find(c) != std::string_view::npos;
  };
  return !text.empty() && letter(text[0]) &&
         std::all_of(text.begin(), text.end(), [&](char c) { return letter(c) || (c >= '0' && c <= '9'); });
}

std::string escaped(std::string_view text, bool quotes) {
  std::string result;
  for (const char c : text) {
    if (c == '\\' || (quotes && c == '"')) result += '\\';
    result += c == '\n' ? std::string("\\n") : std::string(1, c);
  }
  return result;
}

std::string written(const Metrics::Labels& labels) {
  std::string text;
  for (const auto& [name, value] : labels) {
    require(is_name(name, "_") && name != "le", "a metric's label has a name that the format does not allow");
    text += fmt::format("{}{}=\"{}\"", text.empty() ? "" : ",", name, escaped(value, true));
  }
  return text;
}

std::string number(double value) {
  if (std::isnan(value)) return "NaN";
  if (std::isinf(value)) return value > 0 ? "+Inf" : "-Inf";
  return fmt::format("{}", value);
}

void line(std::string& text, const std::string& name, const std::string& labels, const std::string& value) {
  text += labels.empty() ? fmt::format("{} {}\n", name, value) : fmt::format("{}{{{}}} {}\n", name, labels, value);
}

void write(std::string& text, const std::string& name, const std::string& labels, const Histogram& histogram) {
  const Histogram::Seen seen = histogram.seen();
  uint64_t so_far = 0;
  for (size_t i = 0; i < seen.counts.size(); ++i) {
    so_far += seen.counts[i];
    const std::string bound = i < histogram.bounds().size() ? number(histogram.bounds()[i]) : "+Inf";
    line(text, name + "_bucket", fmt::format("{}{}le=\"{}\"", labels, labels.empty() ? "" : ",", bound),
         std::to_string(so_far));
  }
  line(text, name + "_sum", labels, number(seen.sum));
  line(text, name + "_count", labels, std::to_string(so_far));
}

template <typename T>
void write(std::string& text, const std::string& name, const std::string& labels, const T& one) {
  line(text, name, labels, number(one.value()));
}

template <typename Families>
void write(std::string& text, const char* kind, const Families& families) {
  for (const auto& [name, family] : families) {
    text += fmt::format("# HELP {} {}\n# TYPE {} {}\n", name, escaped(family.help, false), name, kind);
    for (const auto& [labels, one] : family.series) write(text, name, labels, *one);
  }
}

}  // namespace

void Counter::add(double amount) {
  require(amount >= 0, "a counter is made less");
  value_ += amount;
}

Histogram::Histogram(std::vector<double> bounds) : bounds_(std::move(bounds)) {
  require(std::is_sorted(bounds_.begin(), bounds_.end()), "a histogram's bounds do not ascend");
  seen_.counts.resize(bounds_.size() + 1);
}

void Histogram::observe(double value) {
  const auto bound = std::lower_bound(bounds_.begin(), bounds_.end(), value);
  const std::lock_guard lock(mutex_);
  ++seen_.counts[static_cast<size_t>(bound - bounds_.begin())];
  seen_.sum += value;
}

Histogram::Seen Histogram::seen() const {
  const std::lock_guard lock(mutex_);
  return seen_;
}

bool Metrics::known(const std::string& name) const {
  return counters_.contains(name) || gauges_.contains(name) || histograms_.contains(name);
}

template <typename T, typename... Args>
T& Metrics::find(Families<T>& families, const std::string& name, const std::string& help, const Labels& labels,
                 Args&&... args) {
  const std::string key = written(labels);
  const std::lock_guard lock(mutex_);
  auto family = families.find(name);
  if (family == families.end()) {
    require(is_name(name, "_:"), "a metric has a name that the format does not allow");
    require(!known(name), "a metric is of two kinds");
    family = families.emplace(name, Family<T>{help, {}}).first;
  }
  std::unique_ptr<T>& one = family->second.series[key];
  if (!one) one = std::make_unique<T>(std::forward<Args>(args)...);
  return *one;
}

Counter& Metrics::counter(const std::string& name, const std::string& help, const Labels& labels) {
  return find(counters_, name, help, labels);
}

Gauge& Metrics::gauge(const std::string& name, const std::string& help, const Labels& labels) {
  return find(gauges_, name, help, labels);
}

Histogram& Metrics::histogram(const std::string& name, const std::string& help, std::vector<double> bounds,
                              const Labels& labels) {
  return find(histograms_, name, help, labels, std::move(bounds));
}

std::string Metrics::text() const {
  const std::lock_guard lock(mutex_);
  std::string text;
  write(text, "counter", counters_);
  write(text, "gauge", gauges_);
  write(text, "histogram", histograms_);
  return text;
}

}  // namespace drover
