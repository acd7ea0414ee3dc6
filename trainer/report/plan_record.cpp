#include "trainer/report/plan_record.h"

#include <algorithm>
#include <cmath>

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

RankMemory rank_of(const Json& json) {
  const double own = number(json, "rank", 0);
  RankMemory rank{.rank = own <= kMostRanks ? static_cast<int>(own) : 0,
                  .weights = number(json, "weights_bytes", 0),
                  .adapter = number(json, "adapter_bytes", 0),
                  .optimizer = number(json, "optimizer_bytes", 0),
                  .saved = number(json, "saved_bytes", 0),
                  .scratch = number(json, "scratch_bytes", 0),
                  .process = number(json, "process_bytes", kHole)};
  rank.total = number(json, "total_bytes", rank.weights + rank.adapter + rank.optimizer + rank.saved + rank.scratch);
  return rank;
}

std::vector<RankMemory> ranks_of(const Json& json) {
  std::vector<RankMemory> ranks;
  const Json& listed = part(json, "ranks");
  for (const Json& rank : listed.is_array() ? listed : Json::array()) {
    if (rank.is_object()) ranks.push_back(rank_of(rank));
  }
  std::ranges::stable_sort(ranks, {}, &RankMemory::rank);
  return ranks;
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

const RankMemory* PlanRecord::fullest() const {
  const auto most = std::ranges::max_element(ranks, {}, &RankMemory::total);
  return most == ranks.end() ? nullptr : &*most;
}

PlanRecord plan_record(const Json& json) {
  PlanRecord plan{.ranks = ranks_of(json),
                  .parameters = number(json, "parameters", kHole),
                  .trainable_parameters = number(json, "trainable_parameters", kHole),
                  .process_bytes = number(json, "process_bytes", kHole),
                  .time = time_of(part(json, "time")),
                  .schedule = text(json, "schedule")};
  for (const RankMemory& rank : plan.ranks) {
    if (std::isfinite(rank.process) && !(plan.process_bytes >= rank.process)) plan.process_bytes = rank.process;
  }
  return plan;
}

std::vector<RankMemory> reached_record(const Json& json) { return ranks_of(json); }

}  // namespace drover
