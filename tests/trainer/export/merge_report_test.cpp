// The sums of a merge's report, against sums that are written down here.
#include "trainer/export/merge_report.h"

#include <gtest/gtest.h>

#include <cmath>

#include "kernels/base/bf16.h"
#include "tests/base/scratch_directory.h"

namespace drover {
namespace {

// Of 4 elements one has no update, two are too small for bf16, one moves.
const std::vector<float> kBase = {1, 1, -2, 4}, kUpdate = {0, 0.001f, 0.002f, 0.5f}, kMerged = {1, 1, -2, 4.5f};

TEST(MergeReport, CountsAndSums) {
  TensorUpdate u{.name = "model.layers.0.mlp.up_proj.weight"};
  u.add(kBase, kUpdate, kMerged);
  EXPECT_EQ(u.elements, 4);
  EXPECT_EQ(u.moved, 3);
  EXPECT_EQ(u.lost, 2);
  EXPECT_EQ(u.weight2, 1 + 1 + 4 + 16);
  const double a = 0.001f, b = 0.002f;
  EXPECT_EQ(u.update2, a * a + b * b + 0.25);
  const double off = static_cast<double>(1.001f) - 1, other = static_cast<double>(-2 + 0.002f) + 2;
  EXPECT_EQ(u.rounding2, off * off + other * other);
}

TEST(MergeReport, PiecesDoNotMatter) {
  std::vector<float> base, update, merged;
  for (int i = 0; i < 1000; ++i) {
    base.push_back(std::sin(static_cast<float>(i)));
    update.push_back(0.01f * std::cos(static_cast<float>(7 * i)));
    merged.push_back(static_cast<float>(bf16(base.back() + update.back())));
  }
  TensorUpdate whole{.name = "w"};
  whole.add(base, update, merged);
  for (const size_t piece : {1u, 7u, 999u}) {
    TensorUpdate parts{.name = "w"};
    for (size_t at = 0; at < base.size(); at += piece) {
      const size_t n = std::min(piece, base.size() - at);
      parts.add(std::span(base).subspan(at, n), std::span(update).subspan(at, n), std::span(merged).subspan(at, n));
    }
    EXPECT_EQ(parts, whole) << piece;
  }
  EXPECT_EQ(tensor_update(parse_json(json_of(whole).dump(), "note"), "note"), whole) << "it survives a journal";
  expect_error(Fault::bad_data, {"note", "moved"}, [] { tensor_update(Json{{"name", "w"}, {"elements", 1}}, "note"); });
}

TEST(MergeReport, KindsAddUp) {
  MergeReport report{.weights = "the base's numbers", .written = "plain numbers", .why_no_logits = "no room"};
  for (const char* name : {"model.layers.0.self_attn.q_proj.weight", "model.layers.0.mlp.up_proj.weight",
                           "model.layers.1.self_attn.q_proj.weight", "lm_head.weight"}) {
    report.updates.push_back({.name = name});
    report.updates.back().add(kBase, kUpdate, kMerged);
  }
  report.untouched = {"model.norm.weight"};
  const std::vector<UpdateSum> kinds = report.kinds();
  ASSERT_EQ(kinds.size(), 3u);
  EXPECT_EQ(kinds[0].kind, "q_proj");
  EXPECT_EQ(kinds[2].kind, "lm_head");
  EXPECT_EQ(kinds[0].tensors, 2);
  EXPECT_EQ(kinds[0].lost, 4);
  EXPECT_DOUBLE_EQ(kinds[0].lost_share(), 2.0 / 3);
  EXPECT_EQ(report.all().elements, 16);
  EXPECT_NEAR(report.all().update(), 0.5 / std::sqrt(22), 1e-4);
  EXPECT_EQ(UpdateSum{}.lost_share(), 0);
  const Json json = parse_json(report_json(report), "report");
  EXPECT_EQ(json["tensors"]["all"], 5);
  EXPECT_EQ(json["kinds"]["q_proj"]["moved"], 6);
  EXPECT_EQ(json["updated"].size(), 4u);
  EXPECT_DOUBLE_EQ(json["updated"]["lm_head.weight"]["lost_share"].get<double>(), 2.0 / 3);
  EXPECT_EQ(json["logits"]["why"], "no room");
  EXPECT_NE(report_table(report).find("q_proj           2"), std::string::npos) << report_table(report);
}

}  // namespace
}  // namespace drover
