// drover generate: one prompt, or a file of them in groups, answered in order.
#include <fstream>
#include <iostream>
#include <nlohmann/json.hpp>

#include "data/prompts.h"
#include "kernels/comm/agree.h"
#include "launch/verbs.h"
#include "trainer/inference.h"

namespace drover {

namespace {

using nlohmann::ordered_json;

constexpr int64_t kTogether = 8;  // prompts of a file that are answered at once

size_t lines_of(const std::string& file) {
  if (!fs::exists(file)) return 0;
  const std::string text = read_text(file);
  return static_cast<size_t>(std::count(text.begin(), text.end(), '\n'));
}

// Drops a half last line that an interrupted run left.
void drop_half_line(const std::string& file) {
  if (!fs::exists(file)) return;
  const std::string text = read_text(file);
  const size_t end = text.rfind('\n');
  if (end == std::string::npos || end + 1 != text.size()) write_text(file, end == std::string::npos ? "" : text.substr(0, end + 1));
}

}  // namespace

Exit run_generate(const Process& process, const GenerateArguments& a) {
  if (a.model.model.empty()) fail(Exit::usage, "generate needs --model DIR");
  if (a.prompt.empty() == a.prompts.empty()) fail(Exit::usage, "generate needs either --prompt TEXT or --prompts FILE.jsonl");
  if (a.resume && a.out.empty()) fail(Exit::usage, "--resume goes with --out FILE: it keeps the answers that are there");
  constexpr std::string_view kAllowed[] = {"device", "model.tokenizer", "train.dtype", "parallel.tp", "data.template", "data.template_date"};
  Recipe recipe = read_overrides(a.overrides, kAllowed);
  refuse_unbuilt(recipe);
  const MeshShape shape{process.world.size, 1, 1};
  if (recipe.parallel.tp != 1 && recipe.parallel.tp != shape.tp) {
    fail(Exit::bad_recipe, "parallel.tp={} must be the number of ranks, which is {}: generate is tensor-parallel over all of them", recipe.parallel.tp, shape.tp);
  }
  recipe.model.path = a.model.model;
  Mesh mesh = launched_by_mpi() ? make_mpi_mesh(shape) : make_self_mesh();
  Communicator& world = *mesh.world;
  const Sampling sampling{a.greedy || (!a.temperature && !a.top_p), static_cast<float>(a.temperature.value_or(1.0)), static_cast<float>(a.top_p.value_or(1.0)), a.seed};

  std::vector<Prompt> prompts;
  std::vector<Answering::Question> questions;
  std::optional<Tokenizer> tokenizer;
  InferenceSettings settings{.model = a.model.model, .adapter = a.model.adapter.empty() ? std::nullopt : std::optional<fs::path>(a.model.adapter), .dtype = dtype_of_name(recipe.train.dtype)};
  together(world, [&] {
    prompts = a.prompts.empty() ? std::vector<Prompt>{{{{"user", a.prompt}}}} : read_prompts(a.prompts);
    const ModelConfig config = read_model_config(a.model.model);
    tokenizer.emplace(Tokenizer::open(tokenizer_directory(recipe)));
    const std::optional<ChatTemplate> chat = a.raw ? std::nullopt : chat_template(recipe);
    settings.stop_ids = stop_ids(chat, *tokenizer, config.eos);
    int64_t longest = 0;
    for (const Prompt& p : prompts) {
      questions.push_back({prompt_ids(p.dialog, *tokenizer, chat, recipe.data.template_date), questions.size()});
      longest = std::max(longest, static_cast<int64_t>(questions.back().ids.size()));
    }
    if (longest >= config.max_positions) fail(Exit::bad_data, "a prompt has {} tokens; prompt and answer together may have {}", longest, config.max_positions);
    settings.sequences = std::min<int64_t>(kTogether, static_cast<int64_t>(prompts.size()));
    settings.capacity_tokens = std::min(config.max_positions, longest + a.max_tokens);
  });
  Inference inference(settings, mesh, process.threads);
  const bool first = world.rank() == 0;

  if (a.prompts.empty()) {
    const Answering::Answer answer = inference.answering().answer(questions, sampling, a.max_tokens).front();
    if (!first) return Exit::done;
    const std::string text = tokenizer->decode(answer.ids);
    if (a.json) {
      std::cout << ordered_json{{"prompt_ids", questions.front().ids}, {"ids", answer.ids}, {"text", text}, {"finish_reason", answer.stopped ? "stop" : "length"}}.dump() << '\n';
    } else {
      std::cout << text << '\n';
    }
    return Exit::done;
  }

  size_t done = 0;
  std::ofstream file;
  if (!a.out.empty()) {
    together(world, [&] {
      if (!first) return;
      if (a.resume) drop_half_line(a.out);
      file.open(a.out, a.resume ? std::ios::app : std::ios::trunc);
      if (!file) fail(Exit::io, "cannot write {}", a.out);
    });
    if (a.resume) done = lines_of(a.out);
    world.barrier();  // before rank 0 writes more
  }
  std::ostream& out = a.out.empty() ? std::cout : file;
  for (size_t begin = done; begin < prompts.size(); begin += kTogether) {
    const auto group = std::span(questions).subspan(begin, std::min<size_t>(kTogether, questions.size() - begin));
    const std::vector<Answering::Answer> answers = inference.answering().answer(group, sampling, a.max_tokens);
    together(world, [&] {
      if (!first) return;
      for (size_t i = 0; i < answers.size(); ++i) out << answered_row(prompts[begin + i], tokenizer->decode(answers[i].ids)) << '\n' << std::flush;
      if (!out) fail(Exit::io, "cannot write {}; is the disk full?", a.out.empty() ? "to stdout" : a.out);
    });
  }
  return Exit::done;
}

}  // namespace drover
