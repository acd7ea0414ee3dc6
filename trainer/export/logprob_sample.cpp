#include "trainer/export/logprob_sample.h"

#include <algorithm>
#include <cmath>

#include "data/token_store.h"
#include "kernels/base/json.h"

namespace drover {

namespace {

constexpr double kDecimals = 1e5;
constexpr size_t kLargestJson = kSampleBytes - 64;  // with what stands around the documents

Json json_of(const Document& document, std::span<const float> logprobs) {
  std::vector<int64_t> trained;
  std::vector<double> values;
  for (size_t t = 1; t < document.ids.size(); ++t) {
    if (document.trained[t] == 0) continue;
    values.push_back(std::round(static_cast<double>(logprobs[trained.size()]) * kDecimals) / kDecimals);
    trained.push_back(static_cast<int64_t>(t));
  }
  return {{"ids", std::vector<int32_t>(document.ids.begin(), document.ids.end())},
          {"trained", trained},
          {"logprobs", values}};
}

LogprobSample::Document parse_document(const Json& json, const std::string& where, std::vector<float>& logprobs) {
  LogprobSample::Document document{json.at("ids").get<std::vector<int32_t>>(),
                                   json.at("trained").get<std::vector<int64_t>>()};
  const auto values = json.at("logprobs").get<std::vector<float>>();
  const auto size = static_cast<int64_t>(document.ids.size());
  const bool inside = std::ranges::all_of(document.trained, [&](int64_t t) { return t >= 1 && t < size; });
  const bool rising = std::ranges::is_sorted(document.trained, std::ranges::less_equal{});
  if (!inside || !rising || values.size() != document.trained.size())
    fail(Fault::bad_data, "{}: trained must be rising places in ids, from 1 on, and logprobs as many", where);
  logprobs.insert(logprobs.end(), values.begin(), values.end());
  return document;
}

}  // namespace

size_t LogprobSample::longest() const {
  size_t longest = 0;
  for (const Document& document : documents) longest = std::max(longest, document.ids.size());
  return longest;
}

std::string sample_json(const TokenStore& documents, std::span<const float> logprobs) {
  std::string text;
  for (int64_t d = 0; d < documents.documents(); ++d) {
    const Document document = documents.document(d);
    const auto later = document.trained.subspan(std::min<size_t>(1, document.trained.size()));
    const auto count = static_cast<size_t>(std::ranges::count_if(later, [](uint8_t trained) { return trained != 0; }));
    require(count <= logprobs.size(), "every trained token has a log-probability");
    const std::string one = json_of(document, logprobs.first(count)).dump();
    logprobs = logprobs.subspan(count);
    if (count > 0 && text.size() + one.size() < kLargestJson) text += (text.empty() ? "" : ",\n") + one;
  }
  return "{\"documents\": [" + text + "]}\n";
}

LogprobSample parse_sample(const std::string& text, const std::string& where) {
  const Json json = parse_json(text, where);
  LogprobSample sample;
  try {
    for (const Json& document : json.at("documents"))
      sample.documents.push_back(parse_document(document, where, sample.logprobs));
  } catch (const nlohmann::json::exception& problem) {
    fail(Fault::bad_data, "{}: {}", where, problem.what());
  }
  return sample;
}

std::optional<LogprobSample> read_sample(const fs::path& adapter) {
  const fs::path file = adapter / kSampleFile;
  if (!fs::exists(file)) return std::nullopt;
  return parse_sample(read_text(file, kSampleBytes), file.string());
}

}  // namespace drover
