// comparison.json of an adapter's directory: how far what was written computes what was trained, measured as ln p of
// the trained tokens of a few documents (compared_documents.h).
//
//   {"rows": "validation", "tokens": 486, "step": 112, "dtype": "bf16", "adapter_dtype": "fp32",
//    "base_weights": "nf4",
//    "matmul": "fp8",                                                                where training multiplied in it
//    "trained_logprob": -1.25,                                                       mean ln p
//    "reloaded": {"logprob": -1.25, "distance": 0, "largest": 0},
//    "served": {…},
//    "why": {"merged": "…"}}                                                         parts that are absent, and why
//
// trained_logprob is of the engine that trained, where a run wrote the file at its end; where an export did, it is
// called checkpoint_logprob: of the checkpoint's parameters in such an engine. The parts are compared with it.
#pragma once
#include <map>
#include <optional>
#include <span>
#include <string>

#include "kernels/tensor.h"

namespace drover {

struct Compared {
  double logprob = 0;   // mean ln p
  double distance = 0;  // ‖Δ‖ / ‖ln p of the reference‖
  double largest = 0;   // |Δ ln p| of a token
  double typical = 0;   // √(mean Δ²); not written: distance and logprob say it
};
Compared compared(std::span<const float> logprobs, std::span<const float> reference);

struct Comparison {
  std::string rows;  // "validation", "training"
  int64_t tokens = 0, step = 0;
  DType dtype = DType::f32, adapter_dtype = DType::f32;  // of weights and activations; of the files
  std::string base_weights;                              // what the frozen linears were held in (base_format.h)
  bool in_fp8 = false;                                   // train.matmul: fp8, which answers are not generated with
  bool of_run = false;                                   // the reference is the engine that trained
  double logprob = 0;                                    // mean ln p of the reference
  // The files, read back into that engine; the same, scored by the generation path; and with the adapter merged into
  // the base, rounded to its number types.
  std::optional<Compared> reloaded, served, merged;
  std::map<std::string, std::string> why;  // "served" → why there is none
  std::string sample;                      // logprobs.json (logprob_sample.h); empty where nothing was computed
};

inline constexpr const char* kNothingToCompare = "the data hold no trained token that both ways could score";

std::string comparison_json(const Comparison& comparison);

// corruption where `reloaded` or `served` is further off than its number types explain: fp32 adapters come back as they
// were, the generation path in fp32 within 1e-5 (of ‖ln p‖, or of a nat where nearly all is known by heart), bf16
// within 0.05, and within 0.25 where training multiplied in fp8. `where`: the adapter; `advice` ends the message.
void check(const Comparison& comparison, const std::string& where, const std::string& advice);

// What was compared, for people: a line, and a warning of each part that is absent, or of merged weights that are
// further off than `merged_bound`. Of a run's own comparison it is known that nothing was merged.
void say(const Comparison& comparison, double merged_bound = 0);

}  // namespace drover
