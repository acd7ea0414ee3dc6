// drover generate: one prompt, or a file of them in groups, answered in order.
#include <iostream>
#include <nlohmann/json.hpp>

#include "data/stop_texts.h"
#include "kernels/base/log.h"
#include "kernels/comm/agree.h"
#include "kernels/comm/gather.h"
#include "launch/open_device.h"
#include "launch/verbs/answer_file.h"
#include "launch/verbs/generate_options.h"
#include "launch/verbs/inference_setup.h"
#include "launch/verbs/questions.h"
#include "model/generation/answers.h"
#include "trainer/generation/inference.h"
#include "trainer/generation/other_base.h"
#include "trainer/setup/engine_settings.h"
#include "trainer/setup/inputs.h"

namespace drover {

namespace {

using nlohmann::ordered_json;

constexpr int64_t kTogether = 8;  // prompts of a file that are answered at once

// Everything that is asked, and how to read the answers.
struct Session {
  Session(const GenerateOptions& a, const Recipe& recipe);

  const Tokenizer& tokenizer() const { return questioner.tokenizer(); }

  ModelConfig config;
  Questioner questioner;
  std::vector<Question> questions;
  InferenceSettings inference;
};

Session::Session(const GenerateOptions& a, const Recipe& recipe)
    : config(adapted_config(recipe.model.path, adapters_of(a).of_all)), questioner(a, recipe, config) {
  std::vector<Prompt> prompts;
  if (a.prompts.empty()) {
    prompts.push_back({{{"user", *a.prompt}}, "--prompt", {}});
  } else {
    prompts = read_prompts(a.prompts, PromptRows::all);
  }
  inference.adapter = questioner.adapters().of_all;
  for (const auto& [name, directory] : questioner.adapters().named) inference.named_adapters.push_back(directory);
  int64_t longest = 1;
  for (const Prompt& p : prompts) {
    questions.push_back(questioner.question_of(p));
    const Question& q = questions.back();
    if (q.error && a.prompts.empty()) throw *q.error;
    if (!q.error) longest = std::max(longest, static_cast<int64_t>(q.ids.size()));
  }
  questioner.warn();
  inference.model = recipe.model.path;
  inference.dtype = dtype_of(recipe.train.dtype);
  inference.weights = weights_as(recipe.model.weights);
  inference.streamed = recipe.memory.weights == WeightHome::host;
  inference.batcher.dearest = sampling_of(a.sampling);
  inference.batcher.sequences = std::min<int64_t>(kTogether, static_cast<int64_t>(prompts.size()));
  inference.capacity_tokens = longest + std::min(a.max_tokens, config.max_positions - longest);
}

void say_speed(const Batcher::Speed& s) {
  std::string answer;
  if (s.answer_tokens > 0) {
    answer = fmt::format("; answers: {} more tokens in {:.2f} s, {:.1f} tok/s", s.answer_tokens, s.answer_seconds,
                         static_cast<double>(s.answer_tokens) / s.answer_seconds);
  }
  log::info("prompts: {} tokens in {:.3f} s{}", s.prompt_tokens, s.prompt_seconds, answer);
}

Request request_of(const Session& session, const Inference& inference, const Question& question, size_t number,
                   const GenerateOptions& a) {
  const int others = session.inference.named_adapters.empty() ? kOwnSlot : kBaseModel;
  return {.ids = question.ids,
          .sampling = sampling_of(a.sampling),
          .stop_ids = question.stop_ids,
          .max_tokens = a.max_tokens,
          .number = number,
          .slot = question.adapter ? inference.slot_of(*question.adapter) : others};
}

// The texts of answers that grow: each ends before the first of --stop.
class Texts {
 public:
  Texts(const Tokenizer& tokenizer, const std::vector<std::string>& stop, size_t answers)
      : tokenizer_(tokenizer), texts_(stop.empty() ? 0 : answers, {StreamDecoder(tokenizer), StopTexts(stop), ""}) {}

  bool stops(size_t index, const Answer& answer) {
    if (texts_.empty()) return false;
    Growing& text = texts_[index];
    text.shown += text.stops.push(text.stream.push(answer.ids.back()));
    return text.stops.found();
  }
  std::string of(size_t index, const Answer& answer) const {
    return !texts_.empty() && texts_[index].stops.found() ? texts_[index].shown : tokenizer_.decode(answer.ids);
  }

 private:
  struct Growing {
    StreamDecoder stream;
    StopTexts stops;
    std::string shown;  // in front of a stop text
  };
  const Tokenizer& tokenizer_;
  std::vector<Growing> texts_;
};

// Prints the answer to --prompt.
void answer_one(const Session& session, Inference& inference, const GenerateOptions& a, bool first) {
  Batcher& batcher = inference.batcher();
  const Question& question = session.questions.front();
  Texts texts(session.tokenizer(), a.stop, 1);
  const auto stops = [&](size_t i, const Answer& answer) { return texts.stops(i, answer); };
  const Answer answer = answer_all(batcher, {request_of(session, inference, question, 0, a)}, {.stops = stops}).front();
  if (answer.error) throw *answer.error;
  if (!first) return;
  say_speed(batcher.speed());
  const std::string text = texts.of(0, answer);
  if (a.json) {
    const ordered_json row{{"prompt_ids", question.ids},
                           {"ids", answer.ids},
                           {"text", text},
                           {"finish_reason", answer.finish == Finish::stop ? "stop" : "length"}};
    std::cout << row.dump() << '\n';
  } else {
    std::cout << text << '\n';
  }
}

// Answers --prompts, a line each, in order and as soon as it is known. A prompt that cannot be answered gives an error
// in its place; bad_data where there was one.
Exit answer_file(const Session& session, Inference& inference, const GenerateOptions& a, Communicator& world) {
  Batcher& batcher = inference.batcher();
  std::vector<Prompt> prompts;
  for (const Question& q : session.questions) prompts.push_back(q.prompt);
  AnswerFile file(a.out, a.resume, prompts, world);
  size_t next = file.done(), failed = 0;  // the line that is written next
  const auto write_errors_before = [&](size_t index) {
    for (; next < index; ++next, ++failed) file.write_error(next, session.questions[next].error->what());
  };
  std::vector<Request> requests;
  std::vector<size_t> asked;
  for (size_t i = file.done(); i < prompts.size(); ++i) {
    if (session.questions[i].error) continue;
    asked.push_back(i);
    requests.push_back(request_of(session, inference, session.questions[i], i, a));
  }
  Texts texts(session.tokenizer(), a.stop, requests.size());
  const auto stops = [&](size_t i, const Answer& answer) { return texts.stops(i, answer); };
  const auto known = [&](size_t i, const Answer& answer) {
    write_errors_before(asked[i]);
    if (answer.error) {
      ++failed;
      file.write_error(next, fmt::format("{}: {}", prompts[next].where, answer.error->what()));
    } else {
      file.write(prompts[next], texts.of(i, answer));
    }
    ++next;
    file.check();
  };
  answer_all(batcher, std::move(requests), {.known = known, .stops = stops});
  write_errors_before(prompts.size());
  file.check();
  if (world.rank() != 0) return failed == 0 ? Exit::done : Exit::bad_data;
  if (!asked.empty()) say_speed(batcher.speed());
  if (failed > 0) {
    log::warn("{} of {} prompts could not be answered; each has an \"error\" in its place", failed, prompts.size());
  }
  return failed == 0 ? Exit::done : Exit::bad_data;
}

Exit run(const Process& process, const GenerateOptions& a) {
  const int ranks = process.mpi.size;
  Recipe recipe;
  MeshShape shape;
  check_same_program(process);
  together(*process.world, [&] {
    recipe = recipe_of(a);
    shape = inference_mesh(recipe.parallel, ranks, "generate");
  });
  check_same(*process.world, "the command line", command_line(recipe, a));
  choose_inference_dtype(recipe, a.overrides, process);
  Mesh mesh = make_mesh(shape);
  std::optional<Session> session;
  together(*mesh.world, [&] { session.emplace(a, recipe); });
  const auto open = [&](const Mesh& host) { return open_device(host, recipe, process); };
  std::vector<fs::path> adapters = session->inference.named_adapters;
  if (session->inference.adapter) adapters.push_back(*session->inference.adapter);
  warn_of_other_base(adapters, recipe, mesh, open);
  Inference inference(session->inference, mesh, open);
  if (!a.prompts.empty()) return answer_file(*session, inference, a, *mesh.world);
  answer_one(*session, inference, a, mesh.world->rank() == 0);
  return Exit::done;
}

}  // namespace

Verb generate_verb(CLI::App& app) {
  const auto a = std::make_shared<GenerateOptions>();
  CLI::App* options = app.add_subcommand("generate", "answer a prompt, or a file of prompts");
  add_generate_options(options, *a);
  return {.options = options, .run = [a](const Process& process) { return run(process, *a); }, .by_many = true};
}

}  // namespace drover
