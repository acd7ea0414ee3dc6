#include "trainer/report/run_record.h"

#include <signal.h>

#include <algorithm>

#include "kernels/base/error.h"
#include "kernels/base/host_name.h"
#include "trainer/report/numbered_files.h"

namespace drover {

namespace {

constexpr uintmax_t kStoreLimit = uintmax_t{4} << 30;  // bytes: it is loaded whole
constexpr size_t kTracesRead = 4;                      // the last ones
constexpr size_t kTraceLimit = size_t{256} << 20;      // bytes

// The name of a directory as it was given, or of where it leads.
std::string name_of(const fs::path& path) {
  const fs::path plain = fs::absolute(path).lexically_normal();
  return (plain.has_filename() ? plain : plain.parent_path()).filename().string();
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

bool is_running(const fs::path& lock) {
  if (!is_file(lock)) return false;
  const Json holder = Json::parse(read_text(lock, 4096), nullptr, false);
  if (!holder.is_object() || !holder.value("pid", Json()).is_number_integer()) return false;
  if (holder.value("host", Json()) != host_name()) return true;
  return kill(holder["pid"].get<pid_t>(), 0) == 0 || errno == EPERM;
}

RunState state_of(const RunRecord& run) {
  if (is_running(run.path / "lock")) return RunState::running;
  if (!is_file(run.path / "adapter" / "adapter_config.json")) return RunState::ended_early;
  const int64_t of_step = run.proof ? run.proof->step : 0;
  const bool of_end =
      of_step == 0 || of_step == run.metrics.last_step() || run.recipe.is("checkpoint.keep_best", "true");
  return of_end ? RunState::done : RunState::ended_early;
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

void take_answers(RunRecord& run) {
  const auto files = numbered_files(run.path, "answers-step-", ".jsonl");
  if (files.empty()) {
    run.absent[Part::answers] = "the recipe names no eval.prompts, so that no answers were kept";
    return;
  }
  run.answers.push_back(parse_answers(read_text(files.front().second), files.front().first));
  if (files.size() > 1) run.answers.push_back(parse_answers(read_text(files.back().second), files.back().first));
}

void take_traces(RunRecord& run) {
  const auto files = trace_files(run.path / "trace");
  if (files.empty()) run.absent[Part::traces] = "no step was traced (log.trace)";
  for (size_t i = files.size() - std::min(files.size(), kTracesRead); i < files.size(); ++i) {
    const auto& [step, file] = files[i];
    run.traces.push_back(parse_trace(read_text(file, kTraceLimit), step, file.string()));
  }
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
    run.lengths = length_record(
        store, static_cast<int64_t>(
                   run.recipe.number("data.max_length").value_or(static_cast<double>(store.longest_document()))));
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

bool RunRecord::validated_after(int64_t step) const {
  return std::ranges::binary_search(metrics.validations, step, {}, &ValidationRow::step);
}

bool RunRecord::saved_after(int64_t step) const {
  const auto every = static_cast<int64_t>(recipe.number("checkpoint.every_steps").value_or(0));
  return every > 0 && step > 0 && step % every == 0;
}

RunRecord read_run(const fs::path& path, BaseNorms norms) {
  check_is_run(path);
  RunRecord run{.name = name_of(path), .path = path, .metrics = metrics_of(path)};
  if (is_file(path / "recipe.yaml")) run.recipe = parse_recipe_record(read_text(path / "recipe.yaml"));
  for (const auto& [step, directory] : numbered_files(path, "step-", "")) run.checkpoints.push_back(step);
  take(run, Part::plan, [&] { take_plan(run); });
  take(run, Part::answers, [&] { take_answers(run); });
  take(run, Part::traces, [&] { take_traces(run); });
  take(run, Part::lengths, [&] { take_lengths(run); });
  take(run, Part::change, [&] { take_change(run, norms); });
  take(run, Part::proof, [&] { take_proof(run); });
  run.state = state_of(run);
  return run;
}

}  // namespace drover
