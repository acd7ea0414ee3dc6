#include "trainer/report/report_numbers.h"

#include <cmath>

#include "trainer/report/line_chart.h"
#include "trainer/report/planned_peak.h"

namespace drover {

namespace {

OrderedJson number(double value) { return std::isfinite(value) ? OrderedJson(value) : OrderedJson(nullptr); }

OrderedJson bins_json(const std::vector<Bin>& bins) {
  OrderedJson json = OrderedJson::array();
  for (const Bin& bin : bins)
    json.push_back({{"step", bin.x}, {"mean", bin.mean}, {"min", bin.min}, {"max", bin.max}, {"count", bin.count}});
  return json;
}

OrderedJson series_json(const RunRecord& run) {
  const std::vector<double> x = run.metrics.step_numbers();
  OrderedJson json;
  const auto add = [&](const char* name, double StepRow::*field) {
    json[name] = x.empty() ? OrderedJson::array() : bins_json(binned(x, run.metrics.column(field), kColumns));
  };
  add("loss", &StepRow::loss), add("learning_rate", &StepRow::learning_rate), add("grad_norm", &StepRow::grad_norm);
  add("tokens_per_second", &StepRow::tokens_per_second), add("step_seconds", &StepRow::step_seconds);
  add("peak_bytes", &StepRow::peak_bytes);
  json["validation"] = OrderedJson::array();
  for (const ValidationRow& row : run.metrics.validations)
    json["validation"].push_back({{"step", row.step}, {"loss", number(row.loss)}});
  return json;
}

OrderedJson stalls_json(const RunSummary& s) {
  OrderedJson json = OrderedJson::array();
  for (const Stall& stall : s.stalls) {
    json.push_back(
        {{"step", stall.step}, {"seconds", stall.seconds}, {"usual_seconds", stall.usual}, {"cause", stall.cause}});
  }
  return json;
}

OrderedJson plan_json(const PlanRecord& plan) {
  const double planned = plan.fullest() == nullptr ? kHole : plan.fullest()->total;
  return {{"fullest_rank_bytes", number(planned)},
          {"process_bytes", number(plan.process_bytes)},
          {"step_seconds", number(plan.time.step_seconds)},
          {"tokens_per_second", number(plan.time.tokens_per_second)},
          {"run_seconds", number(plan.time.run_seconds)},
          {"bubble", number(plan.time.bubble)},
          {"mfu", number(plan.time.mfu)}};
}

OrderedJson memory_json(const PlanRecord& plan, const std::vector<RankMemory>& reached) {
  OrderedJson ranks = OrderedJson::array();
  for (const RankMemory& planned : plan.ranks) {
    const RankMemory* there = reached_by(reached, planned.rank);
    ranks.push_back({{"rank", planned.rank},
                     {"planned_bytes", number(planned.total)},
                     {"reached_bytes", number(there == nullptr ? kHole : there->total)},
                     {"planned_process_bytes", number(planned.process)},
                     {"reached_process_bytes", number(there == nullptr ? kHole : there->process)}});
  }
  return ranks;
}

OrderedJson lengths_json(const LengthRecord& l) {
  OrderedJson bins = OrderedJson::array();
  for (const LengthBin& bin : l.lengths)
    bins.push_back({{"begin", bin.begin}, {"end", bin.end}, {"documents", bin.documents}});
  return {{"documents", l.documents},
          {"rows", l.rows},
          {"tokens", l.tokens},
          {"trained_tokens", l.trained_tokens},
          {"shortest", l.shortest},
          {"median", l.middle},
          {"longest", l.longest},
          {"cut", l.max_length > 0 ? OrderedJson(l.cut) : OrderedJson(nullptr)},
          {"filled", l.filled},
          {"lengths", bins},
          {"rows_by_filled", l.rows_by_filled}};
}

OrderedJson change_json(const AdapterChange& change) {
  OrderedJson linears = OrderedJson::array();
  for (const LinearChange& l : change.linears) {
    linears.push_back(
        {{"path", l.path}, {"change", number(l.change)}, {"base", number(l.base)}, {"relative", number(l.relative())}});
  }
  return linears;
}

OrderedJson proof_json(const ProofRecord& proof) {
  OrderedJson json = {
      {"step", proof.step}, {"tokens", number(proof.tokens)}, {"trained_logprob", number(proof.trained_logprob)}};
  for (const ProofPart& part : proof.parts) {
    json[part.name] = {
        {"logprob", number(part.logprob)}, {"distance", number(part.distance)}, {"largest", number(part.largest)}};
  }
  return json;
}

OrderedJson traces_json(const std::vector<TraceStep>& traces) {
  OrderedJson json = OrderedJson::array();
  for (const TraceStep& trace : traces) {
    OrderedJson ranks = OrderedJson::array();
    for (const int rank : trace.ranks) ranks.push_back({{"rank", rank}, {"idle", trace.idle(rank)}});
    json.push_back({{"step", trace.step}, {"seconds", trace.seconds}, {"idle", trace.idle()}, {"ranks", ranks}});
  }
  return json;
}

OrderedJson advice_json(const std::vector<Advice>& advice) {
  OrderedJson json = OrderedJson::array();
  for (const Advice& a : advice)
    json.push_back({{"rule", a.rule},
                    {"seen", a.seen},
                    {"suggestion", a.holds() ? OrderedJson(a.suggestion) : OrderedJson(nullptr)}});
  return json;
}

OrderedJson whole_run(const ReportedRun& run) {
  const RunRecord& r = run.record;
  OrderedJson json = summary_json(run);
  json["stalls"] = stalls_json(run.summary);
  json["plan"] = r.plan ? plan_json(*r.plan) : OrderedJson(nullptr);
  json["memory"] = r.plan ? memory_json(*r.plan, r.reached) : OrderedJson::array();
  json["traces"] = traces_json(r.traces);
  json["data"] = r.lengths ? lengths_json(*r.lengths) : OrderedJson(nullptr);
  json["linears"] = r.change ? change_json(*r.change) : OrderedJson(nullptr);
  json["proof"] = r.proof ? proof_json(*r.proof) : OrderedJson(nullptr);
  json["advice"] = advice_json(run.advice);
  json["recipe"] = OrderedJson::array();
  for (const RecipeKey& key : r.recipe.keys)
    json["recipe"].push_back({{"key", key.key}, {"value", key.value}, {"origin", key.origin}});
  json["series"] = series_json(r);
  return json;
}

}  // namespace

OrderedJson summary_json(const ReportedRun& run) {
  const RunSummary& s = run.summary;
  return {{"name", run.record.name},
          {"directory", run.record.path.string()},
          {"state", word_of(run.record.state)},
          {"steps", s.steps},
          {"first_loss", number(s.first_loss)},
          {"last_loss", number(s.last_loss)},
          {"best_validation_loss", number(s.best_validation)},
          {"best_validation_step", s.best_step},
          {"last_validation_loss", number(s.last_validation)},
          {"learning_rate", number(s.learning_rate)},
          {"clipped", number(s.clipped)},
          {"tokens", s.tokens},
          {"trained_tokens", s.trained_tokens},
          {"seconds", s.seconds},
          {"step_seconds", number(s.step_seconds)},
          {"tokens_per_second", number(s.tokens_per_second)},
          {"peak_bytes", number(s.peak_bytes)},
          {"change", number(s.change)},
          {"relative_change", number(s.relative_change)}};
}

OrderedJson report_numbers(const std::vector<ReportedRun>& runs) {
  OrderedJson all = OrderedJson::array();
  for (const ReportedRun& run : runs) all.push_back(whole_run(run));
  return {{"runs", all}};
}

}  // namespace drover
