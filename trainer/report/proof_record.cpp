#include "trainer/report/proof_record.h"

namespace drover {

namespace {

double number(const Json& json, const char* key) {
  const Json value = json.value(key, Json());
  return value.is_number() ? value.get<double>() : kHole;
}

std::string text(const Json& json, const char* key) {
  const Json value = json.value(key, Json());
  return value.is_string() ? value.get<std::string>() : "";
}

}  // namespace

ProofRecord proof_record(const Json& json) {
  ProofRecord proof;
  if (!json.is_object()) return proof;
  proof.rows = text(json, "rows"), proof.dtype = text(json, "dtype"), proof.adapter_dtype = text(json, "adapter_dtype");
  proof.tokens = number(json, "tokens");
  proof.trained_logprob = number(json, json.contains("trained_logprob") ? "trained_logprob" : "checkpoint_logprob");
  if (const Json step = json.value("step", Json()); step.is_number_integer()) proof.step = step.get<int64_t>();
  for (const char* name : {"reloaded", "served", "merged"}) {
    const Json part = json.value(name, Json());
    if (part.is_object())
      proof.parts.push_back({name, number(part, "logprob"), number(part, "distance"), number(part, "largest")});
  }
  const Json why = json.value("why", Json::object());
  for (const auto& [name, reason] : why.items()) {
    if (reason.is_string()) proof.why[name] = reason.get<std::string>();
  }
  return proof;
}

}  // namespace drover
