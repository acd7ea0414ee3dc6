#include "trainer/run/validation.h"

#include <cmath>
#include <nlohmann/json.hpp>

#include "kernels/comm/gather.h"
#include "trainer/engine/evaluation.h"
#include "trainer/run/agreed_stop.h"

namespace drover {

Validator::Validator(const Recipe& recipe, const RunInputs& inputs, Engine& engine, Communicator& world,
                     RunDirectory& directory)
    : recipe_(recipe), inputs_(inputs), engine_(engine), world_(world), directory_(directory) {}

bool Validator::run(int64_t step, Progress& progress) {
  if (last_ == step) return true;
  if (!inputs_.data.prompts.empty() && !answer_prompts(step, progress)) return false;
  if (inputs_.data.validation && !evaluate(step, progress)) return false;
  last_ = step;
  return true;
}

std::optional<double> Validator::loss_of_earlier_run() const {
  std::optional<double> loss;
  if (world_.rank() == 0) loss = directory_.loss_at_last_step();
  return gather(world_, loss).front();
}

void Validator::look_back(int64_t step, const BestValidation& best) {
  best_ = best;
  const std::optional<double> loss = loss_of_earlier_run();
  if (loss && inputs_.data.validation) best_.count(step, *loss);
  const bool answered = inputs_.data.prompts.empty() || (world_.rank() == 0 && fs::exists(directory_.answers(step)));
  if ((loss || !inputs_.data.validation) && largest(world_, answered ? 1 : 0) == 1) last_ = step;
}

// answers-step-N.jsonl, and the first of them to read.
bool Validator::answer_prompts(int64_t step, Progress& progress) {
  const std::vector<int32_t> stops = stop_ids(chat_template(recipe_), inputs_.tokenizer, inputs_.model.config().eos);
  const std::vector<std::string> rows = sample_answers(engine_.replica(), *engine_.settings().capacity.answers,
                                                       inputs_.data.prompts, inputs_.tokenizer, stops, asked_to_stop);
  if (asked_to_stop(world_)) return false;
  directory_.record([&](MetricsFile&) {
    std::string text;
    for (const std::string& row : rows) text += row + "\n";
    write_text(directory_.answers(step), text);
    const auto first = nlohmann::json::parse(rows.front())["messages"];
    progress.note(fmt::format("step {}: {} prompts answered in {}; the first: {}", step, rows.size(),
                              directory_.answers(step).string(), first.back()["content"].dump()));
  });
  return true;
}

bool Validator::evaluate(int64_t step, Progress& progress) {
  const TokenStore& rows = *inputs_.data.validation;
  const Evaluation e =
      evaluate_store(engine_, rows, recipe_.train.micro_batch_size, recipe_.train.global_batch_size, {}, asked_to_stop);
  if (!e.complete) return false;
  if (!std::isfinite(e.loss())) {
    progress.finish();
    fail(Fault::non_finite,
         "step {}: the validation loss is {}; the model's weights or the adapter overflow {}. The last checkpoint is "
         "untouched",
         step, e.loss(), word_of(recipe_.train.dtype));
  }
  best_.count(step, e.loss());
  directory_.record([&](MetricsFile& metrics) {
    progress.note(fmt::format("step {}: validation loss {:.4f}", step, e.loss()));
    metrics.validation(step, e.loss(), rows.tokens());
  });
  return true;
}

}  // namespace drover
