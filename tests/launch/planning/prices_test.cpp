// Files of prices: the example, rented and owned machines, and what is refused.
#include "launch/planning/prices.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "kernels/base/error.h"

namespace drover {
namespace {

using testing::AllOf;
using testing::HasSubstr;

const std::string kRented = "currency: EUR\ngpu_hour: {price: 2.5, source: s, date: 2024-07}\n";
const std::string kBox =
    "currency: USD\nbox:\n  price: 1000\n  gpus: 8\n  life_years: 4\n  utilisation: 0.5\n  watts: 700\n  kwh_price: "
    "0.1\n"
    "  source: s\n  date: 2024\n";

std::string refusal(const std::string& text) {
  try {
    parse_prices("p.yaml", text);
  } catch (const Error& error) {
    EXPECT_EQ(error.fault(), Fault::bad_recipe);
    return error.what();
  }
  return "not refused";
}

std::string replaced(std::string text, const std::string& from, const std::string& to) {
  const size_t at = text.find(from);
  EXPECT_NE(at, std::string::npos) << from;
  return text.replace(at, from.size(), to);
}

TEST(Prices, TheExampleHasTheFiveApisOfJuly2024) {
  const Prices prices = read_prices(DROVER_SOURCE_DIR "/configs/planning/prices.example.yaml");
  EXPECT_EQ(prices.currency, "USD");
  const auto& box = std::get<OwnedBox>(prices.machine);
  EXPECT_EQ(box.price, 275000);
  EXPECT_EQ(box.gpus, 8);
  EXPECT_EQ(box.hosting_a_month, 1775);
  std::vector<std::tuple<std::string, double, double>> apis;
  for (const ApiPrice& a : prices.apis) {
    apis.emplace_back(a.name, a.input, a.output);
    EXPECT_FALSE(a.source.empty() || a.date.empty()) << a.name;
  }
  const std::vector<std::tuple<std::string, double, double>> expected = {{"GPT-4o", 5, 15},
                                                                         {"GPT-4o mini", 0.15, 0.6},
                                                                         {"Claude 3.5 Sonnet", 3, 15},
                                                                         {"Mistral Large 2", 3, 9},
                                                                         {"Llama 3.1 405B hosted", 10, 30}};
  EXPECT_EQ(apis, expected);
}

TEST(Prices, RentedAndOwned) {
  const Prices rent = parse_prices("p.yaml", kRented);
  EXPECT_EQ(rent.currency, "EUR");
  EXPECT_EQ(std::get<RentedGpu>(rent.machine).price, 2.5);
  EXPECT_EQ(std::get<RentedGpu>(rent.machine).utilisation, 1);
  EXPECT_TRUE(rent.apis.empty());
  const Prices half = parse_prices("p.yaml", replaced(kRented, "2.5,", "2.5, utilisation: 0.5,"));
  EXPECT_EQ(std::get<RentedGpu>(half.machine).utilisation, 0.5);
  const auto own = std::get<OwnedBox>(parse_prices("p.yaml", kBox).machine);
  EXPECT_FALSE(own.hosting_a_month);
  EXPECT_EQ(own.utilisation, 0.5);
  EXPECT_EQ(own.kwh_price, 0.1);
  EXPECT_EQ(std::get<RentedGpu>(rented(shipped_hardware(), machine(shipped_hardware(), "h100")).machine).price, 2.99);
}

TEST(Prices, WhatIsWrongIsOneProblemWithItsPlace) {
  const auto one = [](const std::string& text, const std::string& problem) {
    EXPECT_THAT(refusal(text), AllOf(HasSubstr("1 problem in the price file p.yaml"), HasSubstr(problem)));
  };
  one(replaced(kRented, "2.5", "0"), "p.yaml:2:12: gpu_hour.price: 0 is out of range; allowed: above 0");
  one(replaced(kRented, "2.5", "-1"), "gpu_hour.price: -1 is out of range");
  one(replaced(kRented, "price: 2.5, ", ""), "gpu_hour.price is missing");
  one(replaced(kRented, "source: s, ", ""), "gpu_hour.source is missing");
  one(replaced(kRented, "currency: EUR\n", ""), "currency is missing");
  for (const char* key : {"price: 1000", "gpus: 8", "life_years: 4", "watts: 700", "kwh_price: 0.1"}) {
    const std::string name = std::string(key).substr(0, std::string(key).find(':'));
    one(replaced(kBox, key, name + ": 0"), "box." + name + ": 0 is out of range");
    one(replaced(kBox, std::string("  ") + key + "\n", ""), "box." + name + " is missing");
  }
  one(replaced(kBox, "0.5", "1.5"), "box.utilisation: 1.5 is out of range; allowed: above 0, at most 1");
  one(replaced(kBox, "life_years: 4", "life_years: 400"), "box.life_years: allowed are at most 100 years");
  one(kBox + "  hosting_a_month: 0\n", "box.hosting_a_month: 0 is out of range");
  one(kBox + "  colour: red\n", "p.yaml:11:3: box.colour is unknown; allowed: price, gpus");
  one(kRented + "api: []\n", "p.yaml:3:1: api is unknown; allowed: currency, gpu_hour, box, apis");
  one(kRented + "apis: []\n", "apis: expected a list with at least one entry");
  one(kRented + "box: {price: 1}\n", "gpu_hour and box exclude each other");
  one("currency: USD\n", "gpu_hour or box is missing");
  one("currency: USD\nbox: 3\n", "p.yaml:2:1: box is a mapping");
  one(kRented + "apis: [3]\n", "p.yaml:3:8: apis[1]: expected a mapping");
  one("", "the price file is empty; it needs currency, and gpu_hour or box");
  const std::string api = "apis:\n  - {name: A, input: 1, output: 2, source: s, date: 2024}\n";
  EXPECT_EQ(parse_prices("p.yaml", kRented + api).apis.size(), 1u);
  one(kRented + replaced(api, "input: 1", "input: 0"), "apis[1].input: 0 is out of range");
  one(kRented + replaced(api, "output: 2, ", ""), "p.yaml:4:5: apis[1].output is missing");
  one(kRented + replaced(api, "date: 2024", "date: 2024, cached: 1"), "apis[1].cached is unknown");
  one(kRented + api + api.substr(6), "apis[2].name: A stands there already");
}

}  // namespace
}  // namespace drover
