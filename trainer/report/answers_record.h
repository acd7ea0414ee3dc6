// answers-step-N.jsonl of a run: how eval.prompts were answered after a step.
#pragma once
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace drover {

struct AnsweredPrompt {
  std::string prompt;  // the dialog's last message before the answer
  std::string answer;
};

struct AnswersOfStep {
  int64_t step = 0;
  std::vector<AnsweredPrompt> rows;  // in the file's order; a row that cannot be read has two empty texts
};

AnswersOfStep parse_answers(std::string_view text, int64_t step);

// The same prompt before and after: rows of the two files that have equal prompts, in order.
struct BeforeAfter {
  std::string prompt, before, after;
};
std::vector<BeforeAfter> before_and_after(const AnswersOfStep& before, const AnswersOfStep& after);

}  // namespace drover
