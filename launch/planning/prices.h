// What computing costs: a file of prices (`drover plan --price FILE`), and none but the file's. All of its money is in
// one currency. configs/planning/prices.example.yaml shows every key.
#pragma once
#include <optional>
#include <string>
#include <variant>
#include <vector>

#include "kernels/base/file.h"
#include "launch/planning/hardware.h"

namespace drover {

// gpu_hour: GPUs that are rented by the hour, whether they work or not.
struct RentedGpu {
  double price = 0;        // of a GPU and hour
  double utilisation = 1;  // the share of the rented hours in which it works
};

// box: a machine that was bought.
struct OwnedBox {
  double price = 0;
  int64_t gpus = 0;
  double life_years = 0;   // until it is worth nothing
  double utilisation = 0;  // the share of its life in which it works
  double watts = 0;        // while it works, all GPUs together; idle hours are not counted
  double kwh_price = 0;
  std::optional<double> hosting_a_month;  // space, cooling, hands
};

// What a hosted model costs, for a million tokens.
struct ApiPrice {
  std::string name;
  double input = 0, output = 0;
  std::string source, date;
};

struct Prices {
  std::string where;  // the file, for messages
  std::string currency;
  std::variant<RentedGpu, OwnedBox> machine;
  std::vector<ApiPrice> apis;
};

// bad_recipe with all problems of the file, missing_input where there is none.
Prices read_prices(const fs::path& file);
Prices parse_prices(const std::string& where, const std::string& text);

// What the table of machines says of renting one; no APIs.
Prices rented(const Hardware& hardware, const Machine& machine);

}  // namespace drover
