#include "trainer/report/plan_record.h"

#include <algorithm>

namespace drover {

namespace {

constexpr double kMostRanks = 1 << 24;

double number(const Json& json, const char* key, double absent) {
  const auto found = json.is_object() ? json.find(key) : json.end();
  const double value = found != json.end() && found->is_number() ? found->get<double>() : kHole;
  return value >= 0 && value <= kMostPlanned ? value : absent;
}

std::string text(const Json& json, const char* key) {
  const auto found = json.is_object() ? json.find(key) : json.end();
  return found != json.end() && found->is_string() ? found->get<std::string>() : "";
}

const Json& part(const Json& json, const char* key) {
  static const Json nothing;
  return json.is_object() && json.contains(key) ? json[key] : nothing;
}

PlannedRank rank_of(const Json& json) {
  const double own = number(json, "rank", 0);
  PlannedRank rank{.rank = own <= kMostRanks ? static_cast<int>(own) : 0,
                   .weights = number(json, "weights_bytes", 0),
                   .adapter = number(json, "adapter_bytes", 0),
                   .optimizer = number(json, "optimizer_bytes", 0),
                   .saved = number(json, "saved_bytes", 0),
                   .scratch = number(json, "scratch_bytes", 0)};
  rank.total = number(json, "total_bytes", rank.weights + rank.adapter + rank.optimizer + rank.saved + rank.scratch);
  return rank;
}

PlannedTime time_of(const Json& json) {
  const Json& calibrated = part(json, "calibrated");
  return {.step_seconds = number(json, "step_seconds", kHole),
          .tokens_per_second = number(json, "tokens_per_second", kHole),
          .run_seconds = number(json, "run_seconds", kHole),
          .bubble = number(json, "bubble", kHole),
          .mfu = number(json, "mfu", kHole),
          .exposed_communication_seconds = number(json, "exposed_communication_seconds", kHole),
          .calibrated = calibrated.is_boolean() && calibrated.get<bool>(),
          .rates = text(json, "rates")};
}

}  // namespace

const PlannedRank* PlanRecord::fullest() const {
  const auto most = std::ranges::max_element(ranks, {}, &PlannedRank::total);
  return most == ranks.end() ? nullptr : &*most;
}

PlanRecord plan_record(const Json& json) {
  PlanRecord plan{.parameters = number(json, "parameters", kHole),
                  .trainable_parameters = number(json, "trainable_parameters", kHole),
                  .process_bytes = number(json, "process_bytes", kHole),
                  .time = time_of(part(json, "time")),
                  .schedule = text(json, "schedule")};
  const Json& ranks = part(json, "ranks");
  for (const Json& rank : ranks.is_array() ? ranks : Json::array()) {
    if (!rank.is_object()) continue;
    plan.ranks.push_back(rank_of(rank));
    const double process = number(rank, "process_bytes", kHole);
    if (!(plan.process_bytes >= process)) plan.process_bytes = process == process ? process : plan.process_bytes;
  }
  return plan;
}

}  // namespace drover
