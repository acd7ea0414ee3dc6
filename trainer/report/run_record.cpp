#include "trainer/report/run_record.h"

#include <fmt/ranges.h>

#include <algorithm>
#include <ranges>

#include "kernels/base/error.h"
#include "trainer/report/numbered_files.h"
#include "trainer/run/run_directory.h"
#include "trainer/run/seen_lock.h"

namespace drover {

namespace {

constexpr uintmax_t kStoreLimit = uintmax_t{4} << 30;  // bytes: it is read whole, for its hash
constexpr size_t kTracesRead = 4;                      // the last ones
constexpr size_t kTraceLimit = size_t{256} << 20;      // bytes

// The last names of a path as it was given, joined.
std::string end_of(const fs::path& path, size_t names) {
  const fs::path plain = fs::absolute(path).lexically_normal();
  const fs::path whole = plain.has_filename() ? plain : plain.parent_path();
  const auto all = static_cast<size_t>(std::distance(whole.begin(), whole.end()));
  if (names >= all) return whole.string();
  fs::path end;
  for (auto name = std::next(whole.begin(), static_cast<std::ptrdiff_t>(all - names)); name != whole.end(); ++name)
    end /= *name;
  return end.string();
}

bool is_file(const fs::path& path) {
  std::error_code ignored;
  return fs::is_regular_file(path, ignored);
}

void check_is_run(const fs::path& path) {
  std::error_code ignored;
  if (!fs::exists(path, ignored)) fail(Fault::missing_input, "{} does not exist{}", path.string(), from_here(path));
  const bool known = is_file(path / "recipe.yaml") || is_file(path / "metrics.jsonl");
  if (!fs::is_directory(path, ignored) || !known) {
    fail(Fault::bad_data,
         "{} is no run: it has neither a recipe.yaml nor a metrics.jsonl; give the output.dir of a recipe that was "
         "trained",
         path.string());
  }
}

MetricsSeries metrics_of(const fs::path& path) {
  MetricsSeries series;
  if (is_file(path / "metrics.jsonl")) series = parse_metrics(read_text(path / "metrics.jsonl"));
  if (series.empty()) {
    fail(Fault::missing_input,
         "{} has no metrics: {} holds no step and no validation; the run has not finished its first step, so that "
         "there is nothing to report yet",
         path.string(), (path / "metrics.jsonl").string());
  }
  return series;
}

RunState state_of(const RunRecord& run) {
  if (seen_lock(run.path).held()) return RunState::running;
  if (!is_file(run.path / "adapter" / "adapter_config.json")) return RunState::ended_early;
  const int64_t of_step = run.proof ? run.proof->step : 0;
  const bool of_end =
      of_step == 0 || of_step == run.metrics.last_step() || run.recipe.is("checkpoint.keep_best", "true");
  return of_end ? RunState::done : RunState::ended_early;
}

int64_t total_steps_of(const fs::path& file) {
  if (!is_file(file)) return 0;
  const Json facts = Json::parse(read_text(file, 65536), nullptr, false);
  const Json total = facts.is_object() ? facts.value("total_steps", Json()) : Json();
  return total.is_number_integer() ? std::max<int64_t>(0, total.get<int64_t>()) : 0;
}

// Reads a part; what fails makes it absent.
template <typename Read>
void take(RunRecord& run, Part part, const Read& read) {
  try {
    read();
  } catch (const Error& error) {
    run.absent[part] = error.what();
  }
}

void take_plan(RunRecord& run) {
  const fs::path file = run.path / "plan.json";
  if (!is_file(file)) {
    run.absent[Part::plan] = fmt::format("{0} is not there; drover plan {1} --json > {0} makes it", file.string(),
                                         (run.path / "recipe.yaml").string());
    return;
  }
  run.plan = plan_record(parse_json(read_text(file), file.string()));
}

void take_reached(RunRecord& run) {
  const fs::path file = run.path / RunDirectory::kReachedFile;
  if (!is_file(file)) {
    run.absent[Part::reached] = fmt::format("{} is not there: a run writes it at its end", file.string());
    return;
  }
  run.reached = reached_record(parse_json(read_text(file), file.string()));
}

void take_answers(RunRecord& run) {
  const auto files = numbered_files(run.path, "answers-step-", ".jsonl");
  if (files.empty()) {
    run.absent[Part::answers] = run.recipe.is_there() ? "the recipe names no eval.prompts, so that no answers were kept"
                                                      : "no answers were kept";
    return;
  }
  run.answers.push_back(parse_answers(read_text(files.front().second), files.front().first));
  if (files.size() > 1) run.answers.push_back(parse_answers(read_text(files.back().second), files.back().first));
}

void take_traces(RunRecord& run) {
  const auto files = trace_files(run.path / "trace");
  for (const auto& [step, file] : files) run.traced_steps.push_back(step);
  if (files.empty()) run.absent[Part::traces] = "no step was traced (log.trace)";
  std::vector<std::string> wrong;
  for (const auto& [step, file] : files | std::views::reverse) {
    if (run.traces.size() + wrong.size() == kTracesRead) break;
    try {
      run.traces.insert(run.traces.begin(), parse_trace(read_text(file, kTraceLimit), step, file.string()));
    } catch (const Error& error) {
      wrong.emplace_back(error.what());
    }
  }
  if (!wrong.empty()) run.absent[Part::traces] = fmt::format("{}", fmt::join(wrong, "; "));
}

void take_lengths(RunRecord& run) {
  const fs::path file = run.path / "data" / "train.h5";
  if (!is_file(file)) {
    run.absent[Part::lengths] = fmt::format("the token store {} is not there", file.string());
  } else if (fs::file_size(file) > kStoreLimit) {
    run.absent[Part::lengths] =
        fmt::format("the token store {} is larger than {} GiB", file.string(), kStoreLimit >> 30);
  } else {
    const TokenStore store = TokenStore::open(file);
    const std::optional<double> limit = run.recipe.number("data.max_length");
    run.lengths =
        length_record(store, static_cast<int64_t>(limit.value_or(static_cast<double>(store.longest_document()))));
    if (!limit) run.lengths->max_length = run.lengths->cut = 0;
  }
}

fs::path adapter_of(const fs::path& run) {
  if (is_file(run / "adapter" / "adapter_config.json")) return run / "adapter";
  const auto checkpoints = numbered_files(run, "step-", "");
  return checkpoints.empty() ? fs::path() : checkpoints.back().second / "adapter";
}

void take_change(RunRecord& run, BaseNorms norms) {
  const fs::path adapter = adapter_of(run.path);
  if (adapter.empty()) {
    run.absent[Part::change] = "there is no adapter and no checkpoint yet";
    return;
  }
  run.change = adapter_change(adapter, run.recipe.word("model.path").value_or(""), norms);
}

void take_proof(RunRecord& run) {
  const fs::path file = run.path / "adapter" / "comparison.json";
  if (!is_file(file)) {
    run.absent[Part::proof] =
        fmt::format("{} is not there: a run writes it with its adapter, when it ends", file.string());
    return;
  }
  run.proof = proof_record(parse_json(read_text(file), file.string()));
}

}  // namespace

const char* word_of(RunState state) {
  switch (state) {
    case RunState::running: return "running";
    case RunState::done: return "done";
    case RunState::ended_early: return "ended early";
  }
  return "";
}

std::optional<double> RunRecord::planned_steps() const {
  return total_steps > 0 ? static_cast<double>(total_steps) : recipe.number("train.max_steps");
}

bool RunRecord::validated_after(int64_t step) const {
  return std::ranges::binary_search(metrics.validations, step, {}, &ValidationRow::step);
}

bool RunRecord::saved_after(int64_t step) const {
  const auto every = static_cast<int64_t>(recipe.number("checkpoint.every_steps").value_or(0));
  return every > 0 && step > 0 && step % every == 0;
}

RunRecord read_run(const fs::path& path, BaseNorms norms) {
  check_is_run(path);
  RunRecord run{.name = end_of(path, 1), .path = path, .metrics = metrics_of(path)};
  if (is_file(path / "recipe.yaml")) run.recipe = parse_recipe_record(read_text(path / "recipe.yaml"));
  run.total_steps = total_steps_of(path / RunDirectory::kFactsFile);
  for (const auto& [step, directory] : numbered_files(path, "step-", "")) run.checkpoints.push_back(step);
  take(run, Part::plan, [&] { take_plan(run); });
  take(run, Part::reached, [&] { take_reached(run); });
  take(run, Part::answers, [&] { take_answers(run); });
  take(run, Part::traces, [&] { take_traces(run); });
  take(run, Part::lengths, [&] { take_lengths(run); });
  take(run, Part::change, [&] { take_change(run, norms); });
  take(run, Part::proof, [&] { take_proof(run); });
  run.state = state_of(run);
  return run;
}

std::vector<RunRecord> read_runs(const std::vector<std::string>& paths, BaseNorms norms) {
  std::error_code ignored;
  for (auto a = paths.begin(); a != paths.end(); ++a) {
    const auto twice = std::find_if(a + 1, paths.end(), [&](const auto& b) { return fs::equivalent(*a, b, ignored); });
    if (twice != paths.end()) fail(Fault::usage, "{} and {} are one directory; name each run once", *a, *twice);
  }
  std::vector<RunRecord> runs;
  for (const std::string& path : paths) {
    RunRecord& run = runs.emplace_back(read_run(path, norms));
    for (size_t names = 2; std::ranges::count(paths, run.name, [&](const auto& p) { return end_of(p, names - 1); }) > 1;
         ++names)
      run.name = end_of(path, names);
  }
  return runs;
}

}  // namespace drover
