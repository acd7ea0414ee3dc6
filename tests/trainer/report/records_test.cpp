// The files of a run, one by one: recipe, plan, trace, answers, comparison; each as it may be found.
#include <gmock/gmock.h>

#include <cmath>

#include "kernels/base/error.h"
#include "trainer/report/answers_record.h"
#include "trainer/report/length_record.h"
#include "trainer/report/plan_record.h"
#include "trainer/report/planned_peak.h"
#include "trainer/report/proof_record.h"
#include "trainer/report/recipe_record.h"
#include "trainer/report/trace_record.h"

namespace drover {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;

constexpr const char* kRecipe =
    "model:\n"
    "  path: \"/a # b/c\"  # command line\n"
    "device: cpu  # default\n"
    "lora:\n"
    "  r: 16  # recipe.yaml:11\n"
    "  # alpha: as in the adapter of lora.init_from\n"
    "train:\n"
    "  max_steps: none  # default\n"
    "  colour: blue\n";

TEST(RecipeRecord, ReadsKeysValuesAndOrigins) {
  const RecipeRecord recipe = parse_recipe_record(kRecipe);
  ASSERT_EQ(recipe.keys.size(), 5u);
  EXPECT_EQ(recipe.word("model.path"), "/a # b/c");
  EXPECT_EQ(recipe.find("model.path")->origin, "command line");
  EXPECT_EQ(recipe.find("device")->value, "cpu");
  EXPECT_EQ(recipe.number("lora.r"), 16);
  EXPECT_EQ(recipe.word("train.max_steps"), std::nullopt);
  EXPECT_EQ(recipe.number("device"), std::nullopt);
  EXPECT_EQ(recipe.find("train.colour")->origin, "");
  EXPECT_EQ(recipe.find("lora.alpha"), nullptr);
}

TEST(RecipeRecord, DifferencesNameKeysThatDifferOrAreAbsent) {
  const RecipeRecord a = parse_recipe_record("lora:\n  r: 8  # x\n  alpha: 32\noutput:\n  dir: a\n");
  const RecipeRecord b = parse_recipe_record("lora:\n  r: 16  # x\n  alpha: 32  # y\noutput:\n  dir: b\ndevice: cpu\n");
  const std::vector<RecipeDifference> all = recipe_differences({&a, &b});
  ASSERT_EQ(all.size(), 2u);
  EXPECT_EQ(all[0].key, "lora.r");
  EXPECT_THAT(all[0].values, ElementsAre("8", "16"));
  EXPECT_EQ(all[1].key, "device");
  EXPECT_THAT(all[1].values, ElementsAre("–", "cpu"));
}

TEST(PlanRecord, EveryKeyMayBeAbsent) {
  const PlanRecord nothing = plan_record(Json::object());
  EXPECT_EQ(nothing.fullest(), nullptr);
  EXPECT_TRUE(std::isnan(nothing.time.step_seconds));
  const PlanRecord plan = plan_record(parse_json(
      R"({"ranks":[{"rank":0,"weights_bytes":10,"saved_bytes":5},{"rank":1,"total_bytes":12,"process_bytes":99},3],
          "time":{"calibrated":true,"rates":"table","step_seconds":0.5,"mfu":null},"later":1})",
      "plan.json"));
  ASSERT_EQ(plan.ranks.size(), 2u);
  EXPECT_EQ(plan.fullest()->rank, 0);
  EXPECT_EQ(plan.fullest()->total, 15);
  EXPECT_EQ(plan.process_bytes, 99);
  EXPECT_EQ(plan.time.step_seconds, 0.5);
  EXPECT_TRUE(plan.time.calibrated);
  EXPECT_TRUE(std::isnan(plan.time.mfu));
  const PlanRecord nonsense = plan_record(parse_json(
      R"({"ranks":[{"rank":1e300,"total_bytes":-1}],"time":{"step_seconds":-2,"run_seconds":1e300}})", "plan.json"));
  EXPECT_EQ(nonsense.ranks[0].rank, 0);
  EXPECT_EQ(nonsense.ranks[0].total, 0);
  EXPECT_TRUE(std::isnan(nonsense.time.step_seconds) && std::isnan(nonsense.time.run_seconds));
}

TEST(PlanRecord, WhatWasReachedIsComparedInArenasOrProcesses) {
  const std::vector<RankMemory> reached = reached_record(parse_json(
      R"({"ranks":[{"rank":1,"weights_bytes":7,"total_bytes":9,"process_bytes":70},
                   {"rank":0,"saved_bytes":8,"process_bytes":60}]})",
      "reached.json"));
  ASSERT_EQ(reached.size(), 2u);
  EXPECT_EQ(reached[0].total, 8);
  EXPECT_EQ(reached[1].rest(), 61);
  EXPECT_EQ(reached_by(reached, 1)->weights, 7);
  EXPECT_EQ(reached_by(reached, 2), nullptr);
  const PlanRecord arenas = plan_record(parse_json(R"({"ranks":[{"rank":0,"total_bytes":8}]})", "plan.json"));
  EXPECT_EQ(reached_peak(arenas, reached, 5), 9);
  EXPECT_EQ(reached_peak(arenas, {}, 5), 5);
  EXPECT_EQ(arenas.ranks[0].rest(), 0);
  const PlanRecord process =
      plan_record(parse_json(R"({"ranks":[{"rank":0,"total_bytes":8,"process_bytes":50}]})", "plan.json"));
  EXPECT_EQ(reached_peak(process, reached, 5), 70);
  EXPECT_EQ(reached_peak(process, reached_record(parse_json(R"({"ranks":[{"rank":0}]})", "reached.json")), 5), 5);
}

TEST(TraceRecord, TakesActionsAndCountsIdleTimeOnce) {
  const TraceStep trace = parse_trace(
      R"({"traceEvents":[
        {"ph":"M","name":"thread_name","pid":0,"tid":3,"args":{"name":"actions"}},
        {"ph":"M","name":"thread_name","pid":1,"tid":3,"args":{"name":"actions"}},
        {"ph":"M","name":"thread_name","pid":-1,"tid":3,"args":{"name":"actions"}},
        {"name":"F0","ph":"X","ts":1000000,"dur":1000000,"pid":-1,"tid":3},
        {"name":"F0","ph":"X","ts":1000000,"dur":1000000,"pid":0,"tid":3},
        {"name":"B0","ph":"X","ts":4000000,"dur":1000000,"pid":0,"tid":3},
        {"name":"<F0","ph":"X","ts":1000000,"dur":1000000,"pid":1,"tid":3},
        {"name":"F0","ph":"X","ts":2000000,"dur":2000000,"pid":1,"tid":3},
        {"name":"B0","ph":"X","ts":3000000,"dur":1000000,"pid":1,"tid":3},
        {"name":"gemm","ph":"X","ts":0,"dur":9000000,"pid":0,"tid":4}]})",
      7, "step-7.json");
  EXPECT_EQ(trace.step, 7);
  EXPECT_EQ(trace.spans.size(), 5u);
  EXPECT_THAT(trace.ranks, ElementsAre(0, 1));
  EXPECT_DOUBLE_EQ(trace.seconds, 4);
  EXPECT_DOUBLE_EQ(trace.idle(0), 0.5);
  EXPECT_DOUBLE_EQ(trace.idle(1), 0.5);  // the message is no work, and what overlaps counts once
  EXPECT_DOUBLE_EQ(trace.idle(), 0.5);
}

TEST(TraceRecord, FindsAThreadByTheNameThatTheTraceGivesIt) {
  const TraceStep trace = parse_trace(
      R"({"traceEvents":[{"ph":"M","name":"thread_name","pid":0,"tid":3,"args":{"name":"actions"}},
                         {"ph":"M","name":"thread_name","pid":0,"tid":4,"args":{"name":"ops"}},
                         {"ph":"X","name":"F0 F1","ts":0,"dur":4,"pid":0,"tid":3},
                         {"ph":"X","name":"sum","ts":4,"dur":4,"pid":0,"tid":3},
                         {"ph":"X","name":"gemm","ts":0,"dur":5,"pid":0,"tid":4}]})",
      1, "x");
  ASSERT_EQ(trace.spans.size(), 2u);
  EXPECT_EQ(trace.spans[0].name, "F0 F1");
  EXPECT_DOUBLE_EQ(trace.idle(0), 0.5);  // a sum over ranks is a message
}

TEST(TraceRecord, RefusesWhatIsNoTrace) {
  for (const char* text : {"", "[]", "{}", R"({"traceEvents":[]})", R"({"traceEvents":[{"ph":"X","tid":"ops"}]})"}) {
    EXPECT_THROW(parse_trace(text, 1, "x"), Error) << text;
  }
}

TEST(AnswersRecord, PairsEqualPromptsInOrder) {
  const AnswersOfStep before = parse_answers(
      R"({"messages":[{"role":"user","content":"Who?"},{"role":"assistant","content":"Nobody."}]})"
      "\nbroken\n"
      R"({"messages":[{"role":"user","content":[{"type":"text","text":"Where?"}]},{"role":"assistant","content":""}]})"
      "\n",
      0);
  AnswersOfStep after = before;
  after.rows[0].answer = "Mara.";
  ASSERT_EQ(before.rows.size(), 3u);
  const std::vector<BeforeAfter> pairs = before_and_after(before, after);
  ASSERT_EQ(pairs.size(), 2u);
  EXPECT_EQ(pairs[0].prompt, "Who?");
  EXPECT_EQ(pairs[0].before, "Nobody.");
  EXPECT_EQ(pairs[0].after, "Mara.");
  EXPECT_EQ(pairs[1].prompt, "Where?");
  after.rows[0].prompt = "Whom?";
  EXPECT_EQ(before_and_after(before, after).size(), 1u);
}

TEST(ProofRecord, TakesThePartsThatWereCompared) {
  const ProofRecord proof = proof_record(parse_json(
      R"({"rows":"validation","tokens":117,"step":200,"dtype":"bf16","adapter_dtype":"fp32","trained_logprob":-1.5,
          "reloaded":{"logprob":-1.5,"distance":0.0,"largest":0.0},"served":{"distance":0.25},
          "why":{"merged":"no room"}})",
      "x"));
  ASSERT_EQ(proof.parts.size(), 2u);
  EXPECT_EQ(proof.step, 200);
  EXPECT_EQ(proof.trained_logprob, -1.5);
  EXPECT_EQ(proof.parts[1].name, "served");
  EXPECT_EQ(proof.parts[1].distance, 0.25);
  EXPECT_TRUE(std::isnan(proof.parts[1].largest));
  EXPECT_EQ(proof.why.at("merged"), "no room");
  EXPECT_TRUE(proof_record(Json(3)).parts.empty());
}

TEST(LengthRecord, CountsLengthsRowsAndWhatWasCut) {
  TokenStore store;
  const auto add = [&](size_t length, int64_t row) {
    std::vector<int32_t> ids(length, 1);
    std::vector<uint8_t> trained(length, 1);
    trained[0] = 0;
    store.add_document(ids, trained, 1, Origin{.row = row});
  };
  add(10, 0), add(20, 1);  // a dialog, and one that was cut
  add(20, 2), add(5, 2);   // a long text in two pieces
  store.make_rows(false, 20);
  const LengthRecord record = length_record(store, 20);
  EXPECT_EQ(record.documents, 4);
  EXPECT_EQ(record.cut, 1);
  EXPECT_EQ(record.shortest, 5);
  EXPECT_EQ(record.longest, 20);
  EXPECT_EQ(record.trained_tokens, 51);
  EXPECT_DOUBLE_EQ(record.filled, 55.0 / 80);
  EXPECT_THAT(record.rows_by_filled, ElementsAre(0, 0, 1, 0, 0, 1, 0, 0, 0, 2));
  store.set_notes("messages", "3 training rows say nothing\n12 training rows are longer than data.max_length 20 and …");
  EXPECT_EQ(length_record(store, 20).cut, 12);
  int64_t counted = 0;
  for (const LengthBin& bin : record.lengths) counted += bin.documents;
  EXPECT_EQ(counted, 4);
}

}  // namespace
}  // namespace drover
