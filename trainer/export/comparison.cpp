#include "trainer/export/comparison.h"

#include <algorithm>
#include <cmath>

#include "kernels/base/json.h"
#include "kernels/base/log.h"
#include "trainer/export/relative_distance.h"

namespace drover {

namespace {

constexpr double kFp32 = 1e-5, kBf16 = 0.05, kFp8 = 0.25;

const char* word_of(DType dtype) { return dtype == DType::bf16 ? "bf16" : "fp32"; }

OrderedJson json_of(const Compared& part) {
  return {{"logprob", part.logprob}, {"distance", part.distance}, {"largest", part.largest}};
}

bool within(const Compared& part, double bound) { return part.distance <= bound || part.typical <= bound; }

void check_part(const std::optional<Compared>& part, double bound, const std::string& what, const std::string& advice) {
  if (!part || within(*part, bound)) return;
  fail(Fault::corruption,
       "{}, the adapter's log-probabilities are off by {:.1e} from those of the one that was "
       "trained (allowed is {:.0e}), of a token by up to {:.1e}. Nothing was written; {}",
       what, part->distance, bound, part->largest, advice);
}

}  // namespace

Compared compared(std::span<const float> logprobs, std::span<const float> reference) {
  require(!reference.empty(), "something is compared");
  Compared part{.distance = RelativeDistance(logprobs, reference).value()};
  double squares = 0;
  for (size_t i = 0; i < logprobs.size(); ++i) {
    const double off = std::abs(static_cast<double>(logprobs[i]) - reference[i]);
    part.logprob += logprobs[i];
    part.largest = std::max(part.largest, off);
    squares += off * off;
  }
  const double tokens = static_cast<double>(logprobs.size());
  part.logprob /= tokens;
  part.typical = std::sqrt(squares / tokens);
  return part;
}

std::string comparison_json(const Comparison& c) {
  OrderedJson json = {{"rows", c.rows},
                      {"tokens", c.tokens},
                      {"step", c.step},
                      {"dtype", word_of(c.dtype)},
                      {"adapter_dtype", word_of(c.adapter_dtype)}};
  if (!c.base_weights.empty()) json["base_weights"] = c.base_weights;
  if (c.in_fp8) json["matmul"] = "fp8";
  if (c.tokens > 0) json[c.of_run ? "trained_logprob" : "checkpoint_logprob"] = c.logprob;
  if (c.reloaded) json["reloaded"] = json_of(*c.reloaded);
  if (c.served) json["served"] = json_of(*c.served);
  if (c.merged) json["merged"] = json_of(*c.merged);
  if (!c.why.empty()) json["why"] = c.why;
  return json.dump(2, ' ', false, OrderedJson::error_handler_t::replace) + "\n";
}

void check(const Comparison& c, const std::string& where, const std::string& advice) {
  const bool exact = c.adapter_dtype == DType::f32;
  check_part(c.reloaded, exact ? 0 : kBf16, where + ": read back", advice);
  check_part(c.served,
             c.in_fp8                         ? kFp8
             : exact && c.dtype == DType::f32 ? kFp32
                                              : kBf16,
             where + ": read back and computed as answers are generated", advice);
}

void say(const Comparison& c, double merged_bound) {
  std::string parts;
  const auto add = [&](const std::optional<Compared>& part, const char* name) {
    if (part) parts += fmt::format("; {} off by {:.1e}", name, part->distance);
  };
  add(c.reloaded, "read back"), add(c.served, "as answers are generated"), add(c.merged, "merged");
  if (!parts.empty()) log::info("log-probabilities of {} {} tokens{} (comparison.json)", c.tokens, c.rows, parts);
  for (const auto& [part, why] : c.why) {
    if (part != "merged" || !c.of_run) log::info("comparison.json has no \"{}\": {}", part, why);
  }
  if (!c.merged || within(*c.merged, merged_bound)) return;
  log::warn(
      "rounding merged weights to the base's number type would move the log-probabilities by {:.1e}, more than usual; "
      "where that matters, use the adapter without merging it",
      c.merged->distance);
}

}  // namespace drover
