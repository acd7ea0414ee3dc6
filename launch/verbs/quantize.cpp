// drover quantize: a model directory with fp8 or NF4 weights, out of another one.
#include <iostream>
#include <nlohmann/json.hpp>

#include "kernels/base/log.h"
#include "kernels/base/program.h"
#include "kernels/comm/agree.h"
#include "launch/verbs/run_recipe.h"
#include "launch/verbs/verb.h"
#include "trainer/export/quantise_model.h"

namespace drover {

namespace {

using nlohmann::ordered_json;

struct Arguments {
  std::string model, directory, to;
  std::optional<int64_t> max_shard_bytes;
  bool json = false;
};

std::optional<std::string> answer(const Arguments& a) {
  if (a.max_shard_bytes && *a.max_shard_bytes < 1)
    fail(Fault::usage, "--max-shard-bytes {} must be above 0", *a.max_shard_bytes);
  if (a.to == "fp8" || a.to == "nf4") return std::nullopt;
  if (a.to.empty()) fail(Fault::usage, "quantize needs --to fp8 or --to nf4");
  fail(Fault::usage, "--to {} is unknown; allowed are fp8 and nf4", a.to);
}

ordered_json as_json(const Arguments& a, const QuantiseReport& report) {
  ordered_json errors;
  for (const KindError& error : report.errors)
    errors[error.kind] = {{"mean", error.mean}, {"largest", error.largest}, {"layer", error.layer}};
  return {{"directory", a.directory},          {"format", a.to},
          {"linears", report.linears},         {"bytes_before", report.bytes_before},
          {"bytes_after", report.bytes_after}, {"relative_errors", errors}};
}

void print(const Arguments& a, const QuantiseReport& report) {
  constexpr double kMega = 1e6;
  std::cout << fmt::format("{} linears in {}; weight files: {:.1f} MB before, {:.1f} MB after\n", report.linears, a.to,
                           static_cast<double>(report.bytes_before) / kMega,
                           static_cast<double>(report.bytes_after) / kMega);
  std::cout << "off by ‖W − Ŵ‖ / ‖W‖      mean  largest\n";
  for (const KindError& error : report.errors) {
    std::cout << fmt::format("  {:<20} {:>7.5f}  {:>7.5f} (layer {})\n", error.kind, error.mean, error.largest,
                             error.layer);
  }
}

// The processes of the job do one thing.
void agree(const Process& process, const Arguments& a) {
  if (process.mpi.size == 1) return;
  check_same_program(process);
  check_same(*process.world, "what is asked for",
             fmt::format("{} {} {} {}", a.model, a.directory, a.to, a.max_shard_bytes.value_or(-1)));
}

Exit run(const Process& process, const Arguments& a) {
  agree(process, a);
  std::optional<ModelDirectory> model;
  together(*process.world, [&] { model.emplace(model_directory(a.model)); });
  QuantiseSettings settings{.to = a.to == "fp8" ? QuantiseTo::fp8 : QuantiseTo::nf4,
                            .threads = process.threads,
                            .world = process.world.get()};
  if (a.max_shard_bytes) settings.max_shard_bytes = *a.max_shard_bytes;
  const QuantiseReport report = quantise_model(*model, a.directory, settings);
  if (process.mpi.rank != 0) return Exit::done;
  if (a.json) {
    std::cout << as_json(a, report).dump() << '\n';
  } else {
    print(a, report);
  }
  log::info(
      "the quantised model is in {}, read back and checked\n  try it: {} generate --model {} --prompt \"…\" --greedy",
      a.directory, shell_quoted(program_name()), shell_quoted(a.directory));
  return Exit::done;
}

}  // namespace

Verb quantize_verb(CLI::App& app) {
  const auto a = std::make_shared<Arguments>();
  CLI::App* options = app.add_subcommand("quantize", "a model's linears in fp8 or NF4, as transformers loads them");
  options->add_option("model", a->model, "the model's directory")->required();
  options->add_option("directory", a->directory, "the directory to make")->required();
  options->add_option("--to", a->to,
                      "fp8: blocks of 128 × 128, as FineGrainedFP8 has it; nf4: four bits, as bitsandbytes has it");
  options->add_option("--max-shard-bytes", a->max_shard_bytes,
                      "how large its weight files get (default: 5000000000); they are dealt out over the processes");
  options->add_flag("--json", a->json, "print the report as JSON");
  options->footer("example: drover quantize models/smollm2 models/smollm2-nf4 --to nf4");
  return {.options = options,
          .run = [a](const Process& process) { return run(process, *a); },
          .by_many = true,
          .answer = [a] { return answer(*a); }};
}

}  // namespace drover
