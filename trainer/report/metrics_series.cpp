#include "trainer/report/metrics_series.h"

#include <algorithm>

#include "kernels/base/json.h"

namespace drover {

namespace {

constexpr size_t kLineLimit = size_t{1} << 16;  // bytes; ours have some hundred

double number(const Json& line, const char* key) {
  const auto found = line.find(key);
  return found != line.end() && found->is_number() ? found->get<double>() : kHole;
}

double amount(const Json& line, const char* key) {
  const double value = number(line, key);
  return value >= 0 ? value : kHole;
}

StepRow step_row(const Json& line, int64_t step) {
  return {.step = step,
          .loss = number(line, "loss"),
          .grad_norm = amount(line, "grad_norm"),
          .learning_rate = amount(line, "learning_rate"),
          .tokens = amount(line, "tokens"),
          .trained_tokens = amount(line, "trained_tokens"),
          .tokens_per_second = amount(line, "tokens_per_second"),
          .step_seconds = amount(line, "step_seconds"),
          .peak_bytes = amount(line, "peak_bytes")};
}

template <typename Row>
void sort_by_step(std::vector<Row>& rows) {
  const auto before = [](const Row& a, const Row& b) { return a.step < b.step; };
  std::ranges::stable_sort(rows, before);
  std::vector<Row> once;
  for (const Row& row : rows) {
    if (!once.empty() && once.back().step == row.step) {
      once.back() = row;
    } else {
      once.push_back(row);
    }
  }
  rows = std::move(once);
}

void take_line(std::string_view text, MetricsSeries& series) {
  const Json line = text.size() > kLineLimit ? Json() : Json::parse(text, nullptr, false);
  const auto step = line.is_object() ? line.find("step") : line.end();
  if (!line.is_object() || step == line.end() || !step->is_number_integer() || step->get<int64_t>() < 0) {
    ++series.unread_lines;
  } else if (line.contains("validation_loss")) {
    series.validations.push_back({step->get<int64_t>(), number(line, "validation_loss"), number(line, "tokens")});
  } else {
    series.steps.push_back(step_row(line, step->get<int64_t>()));
  }
}

}  // namespace

int64_t MetricsSeries::last_step() const {
  const int64_t trained = steps.empty() ? 0 : steps.back().step;
  return std::max(trained, validations.empty() ? 0 : validations.back().step);
}

std::vector<double> MetricsSeries::column(double StepRow::*field) const {
  std::vector<double> values;
  for (const StepRow& row : steps) values.push_back(row.*field);
  return values;
}

std::vector<double> MetricsSeries::step_numbers() const {
  std::vector<double> numbers;
  for (const StepRow& row : steps) numbers.push_back(static_cast<double>(row.step));
  return numbers;
}

MetricsSeries parse_metrics(std::string_view text) {
  MetricsSeries series;
  while (!text.empty()) {
    const size_t end = text.find('\n');
    if (end == text.npos) {  // without its end it is half
      ++series.unread_lines;
      break;
    }
    if (end > 0) take_line(text.substr(0, end), series);
    text.remove_prefix(end + 1);
  }
  sort_by_step(series.steps);
  sort_by_step(series.validations);
  return series;
}

}  // namespace drover
