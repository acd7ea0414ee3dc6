#include "trainer/export/merge_report.h"

#include <algorithm>
#include <cmath>

#include "kernels/base/error.h"

namespace drover {

namespace {

double ratio(double part2, double whole2) { return std::sqrt(part2 / std::max(whole2, 1e-300)); }

// "q_proj" of "model.layers.3.self_attn.q_proj.weight".
std::string kind_of(const std::string& tensor) {
  const std::string module = tensor.substr(0, tensor.rfind('.'));
  return module.substr(module.rfind('.') + 1);
}

OrderedJson json_of(const UpdateSum& sum) {
  return {{"tensors", sum.tensors},         {"elements", sum.elements}, {"moved", sum.moved},        {"lost", sum.lost},
          {"lost_share", sum.lost_share()}, {"update", sum.update()},   {"rounding", sum.rounding()}};
}

}  // namespace

void TensorUpdate::add(std::span<const float> base, std::span<const float> update, std::span<const float> merged) {
  require(base.size() == update.size() && base.size() == merged.size(), "pieces of one tensor are equally long");
  for (size_t i = 0; i < base.size(); ++i) {
    const double w = base[i], d = update[i], off = static_cast<double>(merged[i]) - (base[i] + update[i]);
    weight2 += w * w, update2 += d * d, rounding2 += off * off;
    moved += update[i] != 0;
    lost += update[i] != 0 && merged[i] == base[i];
  }
  elements += static_cast<int64_t>(base.size());
}

Json json_of(const TensorUpdate& u) {
  return {{"name", u.name},       {"elements", u.elements}, {"moved", u.moved},        {"lost", u.lost},
          {"weight2", u.weight2}, {"update2", u.update2},   {"rounding2", u.rounding2}};
}

TensorUpdate tensor_update(const Json& json, const std::string& where) {
  try {
    return {.name = json.at("name").get<std::string>(),
            .elements = json.at("elements").get<int64_t>(),
            .moved = json.at("moved").get<int64_t>(),
            .lost = json.at("lost").get<int64_t>(),
            .weight2 = json.at("weight2").get<double>(),
            .update2 = json.at("update2").get<double>(),
            .rounding2 = json.at("rounding2").get<double>()};
  } catch (const nlohmann::json::exception& problem) {
    fail(Fault::bad_data, "{}: {}", where, problem.what());
  }
}

void UpdateSum::add(const TensorUpdate& u) {
  ++tensors;
  elements += u.elements, moved += u.moved, lost += u.lost;
  weight2 += u.weight2, update2 += u.update2, rounding2 += u.rounding2;
}

double UpdateSum::lost_share() const { return moved == 0 ? 0 : static_cast<double>(lost) / static_cast<double>(moved); }
double UpdateSum::update() const { return ratio(update2, weight2); }
double UpdateSum::rounding() const { return ratio(rounding2, update2); }

std::vector<UpdateSum> MergeReport::kinds() const {
  std::vector<UpdateSum> kinds;
  for (const TensorUpdate& u : updates) {
    const std::string kind = kind_of(u.name);
    auto found = std::ranges::find(kinds, kind, &UpdateSum::kind);
    if (found == kinds.end()) found = kinds.insert(kinds.end(), {.kind = kind});
    found->add(u);
  }
  return kinds;
}

UpdateSum MergeReport::all() const {
  UpdateSum sum{.kind = "all"};
  for (const TensorUpdate& u : updates) sum.add(u);
  return sum;
}

std::string report_json(const MergeReport& report) {
  OrderedJson kinds = OrderedJson::object();
  for (const UpdateSum& sum : report.kinds()) kinds[sum.kind] = json_of(sum);
  OrderedJson updated = OrderedJson::object();
  for (const TensorUpdate& u : report.updates) {
    UpdateSum one;
    one.add(u);
    updated[u.name] = {{"lost_share", one.lost_share()}, {"update", one.update()}, {"rounding", one.rounding()}};
  }
  OrderedJson logits = {{"why", report.why_no_logits}};
  if (report.logits) logits = {{"difference", report.logits->difference}, {"effect", report.logits->effect}};
  const OrderedJson json = {{"weights", report.weights},
                            {"written", report.written},
                            {"tensors",
                             {{"all", report.updates.size() + report.untouched.size()},
                              {"updated", report.updates.size()},
                              {"untouched", report.untouched}}},
                            {"all", json_of(report.all())},
                            {"kinds", kinds},
                            {"updated", updated},
                            {"logits", logits}};
  return json.dump(2, ' ', false, OrderedJson::error_handler_t::replace) + "\n";
}

std::string report_table(const MergeReport& report) {
  std::string text = fmt::format("{:<10} {:>7}  {:>11}  {:>12}  {:>17}\n", "merged", "tensors", "‖ΔW‖ / ‖W‖",
                                 "updates lost", "rounding / ‖ΔW‖");
  std::vector<UpdateSum> lines = report.kinds();
  lines.push_back(report.all());
  for (const UpdateSum& sum : lines) {
    text += fmt::format("{:<10} {:>7}  {:>11.2e}  {:>11.2f}%  {:>15.2e}\n", sum.kind, sum.tensors, sum.update(),
                        100 * sum.lost_share(), sum.rounding());
  }
  return text + fmt::format("{} tensors are the base's; all of it is in merge_report.json", report.untouched.size());
}

}  // namespace drover
