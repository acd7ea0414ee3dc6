// What merging did to a model's weights, and what the rounding of the merged ones took of the updates:
// merge_report.json of a merged directory.
//
//   {"weights": "the base's numbers", "written": "plain numbers of the base's types",
//    "tensors": {"all": 291, "updated": 224, "untouched": ["model.embed_tokens.weight", …]},
//    "all": {"tensors": 224, "elements": …, "moved": …, "lost": …,
//            "lost_share": 0.21, "update": 0.013, "rounding": 0.4},
//    "kinds": {"q_proj": {…}, …},
//    "updated": {"model.layers.0.self_attn.q_proj.weight": {"lost_share": …, "update": …, "rounding": …}, …},
//    "logits": {"difference": 2.1e-3, "effect": 0.4}}
// logits: of a prompt, merged and with the adapter apart (verify_export.h); {"why": "…"} where the model was not run.
//
// elements  of the updated tensors
// moved     those with ΔW ≠ 0 in fp32
// lost      those of them whose merged number, as a reader gets it, is the base's
// update    ‖ΔW‖ / ‖W‖
// rounding  ‖Ŵ − (W + ΔW)‖ / ‖ΔW‖, Ŵ: as a reader gets it
#pragma once
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "kernels/base/json.h"

namespace drover {

// Sums of one tensor, in fp64, element by element in its order: in whatever pieces they come, they have the same bits.
struct TensorUpdate {
  std::string name;
  int64_t elements = 0, moved = 0, lost = 0;
  double weight2 = 0, update2 = 0, rounding2 = 0;  // ‖W‖², ‖ΔW‖², ‖Ŵ − (W + ΔW)‖²

  // Four pieces of equal length: W, ΔW, Ŵ. W + ΔW is summed in fp32, as it was merged.
  void add(std::span<const float> base, std::span<const float> update, std::span<const float> merged);
  bool operator==(const TensorUpdate&) const = default;
};
Json json_of(const TensorUpdate& update);
TensorUpdate tensor_update(const Json& json, const std::string& where);  // bad_data

struct UpdateSum {
  std::string kind;  // "q_proj", "lm_head"
  int64_t tensors = 0, elements = 0, moved = 0, lost = 0;
  double weight2 = 0, update2 = 0, rounding2 = 0;

  void add(const TensorUpdate& update);
  double lost_share() const;  // of those moved; 0 without any
  double update() const;
  double rounding() const;
};

struct MergeReport {
  std::string weights;                 // what was merged into
  std::string written;                 // in what
  std::vector<TensorUpdate> updates;   // in the order of the model's table
  std::vector<std::string> untouched;  // tensors that are the base's

  struct Logits {
    double difference = 0, effect = 0;  // MergedCheck
  };
  std::optional<Logits> logits;
  std::string why_no_logits;

  std::vector<UpdateSum> kinds() const;  // in the order of their first tensors
  UpdateSum all() const;
};

std::string report_json(const MergeReport& report);
std::string report_table(const MergeReport& report);  // for people: a line for each kind

}  // namespace drover
