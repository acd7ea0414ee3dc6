#include "launch/planning/prices.h"

#include <algorithm>

#include "kernels/base/error.h"
#include "launch/planning/field_reader.h"

namespace drover {

namespace {

RecipeDocument empty_document() {
  RecipeDocument document;
  document.kind = {.name = "price file",
                   .sections = "currency:, gpu_hour: or box:, and apis:",
                   .least = "it needs currency, and gpu_hour or box",
                   .most_values = 10'000};
  return document;
}

RentedGpu read_rented(RecipeDocument& document) {
  FieldReader fields(document, "gpu_hour");
  RentedGpu result = {.price = fields.above_zero("price")};
  if (fields.has("utilisation")) result.utilisation = fields.share("utilisation");
  fields.text("source");
  fields.date("date");
  fields.finish({"price", "utilisation", "source", "date"});
  return result;
}

OwnedBox read_box(RecipeDocument& document) {
  FieldReader fields(document, "box");
  OwnedBox result = {.price = fields.above_zero("price"),
                     .gpus = fields.whole_above_zero("gpus"),
                     .life_years = fields.above_zero("life_years"),
                     .utilisation = fields.share("utilisation"),
                     .watts = fields.above_zero("watts"),
                     .kwh_price = fields.above_zero("kwh_price")};
  if (result.life_years > 100) fields.complain("life_years", "allowed are at most 100 years");
  if (fields.has("hosting_a_month")) result.hosting_a_month = fields.above_zero("hosting_a_month");
  fields.text("source");
  fields.date("date");
  fields.finish(
      {"price", "gpus", "life_years", "utilisation", "watts", "kwh_price", "hosting_a_month", "source", "date"});
  return result;
}

std::vector<ApiPrice> read_apis(RecipeDocument& document) {
  FieldReader top(document, "");
  std::vector<ApiPrice> result;
  int number = 0;
  for (const YAML::Node& item : top.list("apis")) {
    FieldReader fields(document, item, fmt::format("apis[{}]", ++number));
    ApiPrice api = {.name = fields.text("name"),
                    .input = fields.above_zero("input"),
                    .output = fields.above_zero("output"),
                    .source = fields.text("source"),
                    .date = fields.date("date")};
    fields.finish({"name", "input", "output", "source", "date"});
    if (!api.name.empty() && std::ranges::find(result, api.name, &ApiPrice::name) != result.end())
      fields.complain("name", fmt::format("{} stands there already", shown(api.name)));
    result.push_back(std::move(api));
  }
  return result;
}

Prices read_document(RecipeDocument document) {
  const std::string what = fmt::format("the price file {}", document.file);
  document.fail_if_wrong(what);
  const std::vector<std::string> sections = sections_of(document);
  const auto has = [&](const char* name) { return std::ranges::find(sections, name) != sections.end(); };
  Prices result = {.where = document.file};
  const std::vector<std::string> known = {"currency", "gpu_hour", "box", "apis"};
  for (const std::string& section : sections) {
    if (std::ranges::find(known, section) != known.end()) continue;
    const auto entry = document.entries.lower_bound(section);
    document.complain(entry->second, fmt::format("{} is unknown; allowed: {}", shown(section), fmt::join(known, ", ")));
  }
  result.currency = FieldReader(document, "").text("currency");
  const Entry start = document.entry_at(YAML::Mark::null_mark());
  if (has("gpu_hour") == has("box")) {
    document.complain(start, has("box")
                                 ? "gpu_hour and box exclude each other; give what the machine is: rented or owned"
                                 : "gpu_hour or box is missing; give what the machine is: rented or owned");
  } else if (has("box")) {
    result.machine = read_box(document);
  } else {
    result.machine = read_rented(document);
  }
  if (has("apis")) result.apis = read_apis(document);
  document.fail_if_wrong(what);
  return result;
}

}  // namespace

Prices read_prices(const fs::path& file) {
  RecipeDocument document = empty_document();
  document.read(file);
  return read_document(std::move(document));
}

Prices parse_prices(const std::string& where, const std::string& text) {
  RecipeDocument document = empty_document();
  document.parse(where, text);
  return read_document(std::move(document));
}

Prices rented(const Hardware& hardware, const Machine& machine) {
  return {.where = hardware.where, .currency = "USD", .machine = RentedGpu{.price = machine.gpu_hour_dollars}};
}

}  // namespace drover
