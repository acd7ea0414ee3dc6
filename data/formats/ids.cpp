// Rows that are tokenised already, as Hugging Face's data sets have them: labels are the ids, or -100 where a token is
// not a target (they are shifted in the model, not in the file).
#include <array>
#include <limits>

#include "data/formats/fields.h"
#include "data/formats/formats.h"
#include "kernels/base/error.h"

namespace drover {

namespace {

constexpr std::array<const char*, 4> kFields{"input_ids", "labels", "attention_mask", "position_ids"};
constexpr int64_t kNotTrained = -100;

std::vector<int64_t> numbers_of(const OrderedJson& list, const char* field) {
  if (!list.is_array()) wrong(fmt::format("\"{}\" must be a list of whole numbers", field));
  std::vector<int64_t> numbers;
  for (const OrderedJson& number : list) {
    if (!number.is_number_integer() || (number.is_number_unsigned() && number.get<uint64_t>() > (uint64_t{1} << 62)))
      wrong(fmt::format("element {} of \"{}\" is no whole number", numbers.size() + 1, field));
    numbers.push_back(number.get<int64_t>());
  }
  return numbers;
}

// A list as long as the ids; `allowed(i, number)` says whether it can be honoured.
template <typename Allowed>
std::vector<int64_t> companion_of(const OrderedJson& j, const char* field, size_t size, const char* otherwise,
                                  Allowed&& allowed) {
  std::vector<int64_t> numbers = numbers_of(j[field], field);
  if (numbers.size() != size)
    wrong(fmt::format("\"{}\" has {} elements, and \"input_ids\" has {}", field, numbers.size(), size));
  for (size_t i = 0; i < size; ++i) {
    if (!allowed(i, numbers[i]))
      wrong(fmt::format("element {} of \"{}\" is {}; {}", i + 1, field, numbers[i], otherwise));
  }
  return numbers;
}

void read_ids(const OrderedJson& j, Row& row) {
  const std::vector<int64_t> ids = numbers_of(j["input_ids"], "input_ids");
  if (ids.empty()) wrong("\"input_ids\" is empty");
  for (const int64_t id : ids) {
    if (id < 0 || id > std::numeric_limits<int32_t>::max()) wrong(fmt::format("the id {} is in no vocabulary", id));
    row.ids.push_back(static_cast<int32_t>(id));
  }
  if (has(j, "attention_mask")) {
    companion_of(j, "attention_mask", ids.size(), "only 1 is allowed: leave padding out",
                 [](size_t, int64_t number) { return number == 1; });
  }
  if (has(j, "position_ids")) {
    companion_of(j, "position_ids", ids.size(), "positions count from 0: give every document a row of its own",
                 [](size_t i, int64_t number) { return number == static_cast<int64_t>(i); });
  }
  if (!has(j, "labels")) return;
  const std::vector<int64_t> labels =
      companion_of(j, "labels", ids.size(), "allowed are the id at the same place, or -100 where it is not trained",
                   [&](size_t i, int64_t number) { return number == kNotTrained || number == ids[i]; });
  row.trained.emplace();
  for (const int64_t label : labels) row.trained->push_back(label == kNotTrained ? 0 : 1);
}

}  // namespace

const RowFormatSpec kIdsFormat = {RowFormat::ids, kFields, std::span(kFields).first(1), read_ids};

}  // namespace drover
