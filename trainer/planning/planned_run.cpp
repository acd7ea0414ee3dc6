#include "trainer/planning/planned_run.h"

#include <fmt/ranges.h>

#include <algorithm>
#include <numeric>

#include "data/loader.h"
#include "trainer/engine/plan.h"
#include "trainer/export/compared_documents.h"
#include "trainer/export/token_logprobs.h"
#include "trainer/generation/sample_answers.h"
#include "trainer/planning/disk_plan.h"
#include "trainer/setup/engine_settings.h"

namespace drover {

namespace {

constexpr int64_t kSampledSteps = 3, kSampledValidation = 2;

// Evenly spread over [0, count).
std::vector<int64_t> spread_over(int64_t count, int64_t most) {
  std::vector<int64_t> chosen;
  const int64_t n = std::clamp<int64_t>(count, 1, most);
  for (int64_t i = 0; i < n; ++i) chosen.push_back(i * count / n);
  return chosen;
}

// At the start, at the end, and in between.
int64_t validations_of(const Recipe& recipe, int64_t steps) {
  const int64_t every = recipe.eval.every_steps;
  return 2 + (every > 0 ? (steps - 1) / every : 0);
}

// As compare_trained takes them; nothing where no document trains. The last dp rank has the most micro-batches,
// the first one the most documents of its own.
std::optional<PlannedWork::Compared> compared_of(const Recipe& recipe, const EngineSettings& settings,
                                                 const PreparedData& data, int dp) {
  const TokenStore documents = compared_documents(recipe, data);
  if (documents.trained_tokens(0, documents.documents()) == 0) return {};
  PlannedWork::Compared compared{.pass_rows = scoring_of(documents).batcher.pass_rows};
  const int64_t rows = rows_of_a_micro_batch(settings.capacity, documents),
                at_once = rows * settings.capacity.local_micro_batches * dp;
  for (int64_t begin = 0; begin < documents.rows(); begin += at_once) {
    std::vector<int64_t> chosen(static_cast<size_t>(std::min(at_once, documents.rows() - begin)));
    std::iota(chosen.begin(), chosen.end(), begin);
    Batch batch = batch_of_rows(documents, chosen, rows, dp - 1, dp);
    if (batch.weight_sum > 0) compared.batches.push_back(std::move(batch));
  }
  for (int64_t d = 0; d < documents.documents(); d += dp)
    compared.served.push_back(static_cast<int64_t>(documents.document(d).ids.size()));
  return compared;
}

// What a recipe asks for that only its data can tell.
std::string without_data(const Recipe& recipe) {
  std::vector<std::string_view> parts;
  if (rows_compared(recipe) == "validation") parts.emplace_back("validations");
  if (recipe.eval.prompts) parts.emplace_back("answers to eval.prompts");
  parts.emplace_back("the comparison of the export");
  return fmt::format("{}: the data or the tokenizer is not here", fmt::join(parts, ", "));
}

std::optional<PlannedWork::Answers> answers_of(const Recipe& recipe, const EngineSettings& settings,
                                               const PreparedData& data, int dp, int64_t steps) {
  const auto& capacity = settings.capacity.answers;
  if (!capacity) return {};
  const auto prompts = static_cast<int64_t>(data.prompts.size());
  int64_t tokens = 0;
  for (const SamplePrompt& prompt : data.prompts) tokens += static_cast<int64_t>(prompt.ids.size());
  return PlannedWork::Answers{.prompts = (prompts + dp - 1) / dp,
                              .prompt_tokens = tokens / prompts,
                              .tokens = kSampleAnswerTokens,
                              .at_once = capacity->sequences,
                              .times = validations_of(recipe, steps)};
}

}  // namespace

PlannedWork planned_work(const Recipe& recipe, const EngineSettings& settings, const MeshShape& shape,
                         const PreparedData* data) {
  PlannedWork work{.file_bytes = model_file_bytes(recipe.model.path, settings.model)};
  const auto add_files = [&] {
    const DiskPlan disk = plan_disk(recipe, settings.model, settings.adapter, shape, data, work.steps);
    work.checkpoints = disk.written, work.checkpoint_bytes = disk.checkpoint_bytes;
    work.adapter_bytes = disk.adapter_bytes;
  };
  if (data == nullptr) {
    const Capacity& c = settings.capacity;
    const Batch batch = worst_batch(c.micro_batch.tokens, c.micro_batch.trained_tokens, settings.max_positions,
                                    c.local_micro_batches, shape.dp());
    work.batch = [batch](int, int64_t) { return batch; };
    work.sampled = {0};
    work.steps = recipe.train.max_steps.value_or(0);
    work.left_out.push_back(without_data(recipe));
    add_files();
    return work;
  }
  const auto loader_of = [&recipe, &shape](const TokenStore& store, int dp_rank, bool shuffle) {
    return Loader(store, {.micro_batch_size = recipe.train.micro_batch_size,
                          .global_batch_size = recipe.train.global_batch_size,
                          .shuffle = shuffle,
                          .seed = static_cast<uint64_t>(recipe.train.seed),
                          .dp_rank = dp_rank,
                          .dp_size = shape.dp()});
  };
  auto loaders = std::make_shared<std::vector<Loader>>();
  for (int dp = 0; dp < shape.dp(); ++dp) loaders->push_back(loader_of(data->train, dp, recipe.data.shuffle));
  work.batch = [loaders](int dp_rank, int64_t step) {
    const Loader& loader = (*loaders)[static_cast<size_t>(dp_rank)];
    return loader.load(loader.position_of(step));
  };
  work.steps_per_epoch = loaders->front().steps_per_epoch();
  work.steps = total_steps(recipe, work.steps_per_epoch);
  work.sampled = spread_over(std::min(work.steps, work.steps_per_epoch), kSampledSteps);
  add_files();
  work.compared = compared_of(recipe, settings, *data, shape.dp());
  work.answers = answers_of(recipe, settings, *data, shape.dp(), work.steps);
  if (!data->validation) return work;
  const Loader validation = loader_of(*data->validation, 0, false);
  for (const int64_t step : spread_over(validation.steps_per_epoch(), kSampledValidation))
    work.validation.push_back(validation.load({0, step}));
  work.validation_batches = static_cast<double>(validation.steps_per_epoch());
  work.validations = validations_of(recipe, work.steps);
  return work;
}

namespace {

std::string duration(double seconds) {
  if (seconds < 1) return fmt::format("{:.0f} ms", seconds * 1e3);
  if (seconds < 120) return fmt::format("{:.1f} s", seconds);
  if (seconds < 7200) return fmt::format("{:.1f} min", seconds / 60);
  return seconds < 48 * 3600 ? fmt::format("{:.1f} h", seconds / 3600) : fmt::format("{:.1f} days", seconds / 86400);
}

// Each part on a line of its own, so that the run's time can be checked by hand.
std::string print_run(const TimePlan& p) {
  std::string text = fmt::format("  the run of {} steps: {}, of that\n", p.steps, duration(p.run_seconds));
  const auto add = [&](double seconds, const std::string& what) {
    if (seconds > 0) text += fmt::format("    {}: {}\n", what, duration(seconds));
  };
  add(static_cast<double>(p.steps) * p.step_seconds, "steps");
  add(p.validation_seconds, fmt::format("{} validations", p.validations));
  add(p.answer_seconds, fmt::format("answers to eval.prompts, {} times, at their longest", p.answer_rounds));
  add(p.checkpoint_seconds, fmt::format("{} checkpoint{}", p.checkpoints, p.checkpoints == 1 ? "" : "s"));
  const bool writing = p.checkpoint_seconds > 0;  // its time is known
  add(p.export_seconds, writing ? "writing the adapter, and checking that it computes what was trained"
                                : "checking that the adapter computes what was trained");
  for (const std::string& what : p.left_out) text += fmt::format("    without {}\n", what);
  return text;
}

}  // namespace

std::string print_time(const TimePlan& p, const MeshShape& shape, const std::string& rates) {
  std::string text = fmt::format("time, at {}:\n", rates);
  text += fmt::format("  a step: {} for {} tokens, {:.0f} tokens/s", duration(p.step_seconds), p.tokens_per_step,
                      p.tokens_per_second);
  if (shape.size() > 1) text += fmt::format(" ({:.0f} a rank)", p.tokens_per_second / shape.size());
  if (p.mfu > 0) text += fmt::format("; MFU {:.1f} %", 100 * p.mfu);
  if (shape.pp() > 1) text += fmt::format("; bubble {:.1f} %", 100 * p.bubble);
  if (shape.size() > 1)
    text += fmt::format("; exposed communication {:.1f} %", 100 * p.exposed_seconds / p.step_seconds);
  std::vector<std::pair<double, std::string_view>> ops;
  double all = 0;
  for (const auto& [op, seconds] : p.ops) ops.emplace_back(seconds, op), all += seconds;
  std::ranges::sort(ops, std::greater{});
  text += "\n  of its ops:";
  for (size_t i = 0; i < std::min<size_t>(ops.size(), 5); ++i)
    text += fmt::format(" {} {:.0f} %{}", ops[i].second, 100 * ops[i].first / all, i == 4 ? "" : ",");
  text += '\n';
  if (p.first_step_seconds > 0)
    text += fmt::format("  until the first step: {} to read the weights from disk\n", duration(p.first_step_seconds));
  if (p.epoch_seconds > 0) text += fmt::format("  an epoch: {}\n", duration(p.epoch_seconds));
  if (p.steps > 0) text += print_run(p);
  return text;
}

}  // namespace drover
