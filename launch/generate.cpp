// drover generate: one prompt, or a file of them in groups, answered in order.
#include <fstream>
#include <iostream>
#include <nlohmann/json.hpp>

#include "kernels/base/log.h"
#include "launch/verbs.h"
#include "trainer/inference.h"

namespace drover {

namespace {

using nlohmann::ordered_json;

struct Prompt {
  std::vector<Message> dialog;
  std::string text;  // of a {"prompt"} row
};

std::vector<Prompt> read_prompts(const std::string& file) {
  std::vector<Prompt> prompts;
  std::istringstream in(read_text(file, size_t{1} << 30));
  int64_t number = 0;
  for (std::string line; std::getline(in, line);) {
    ++number;
    if (line.find_first_not_of(" \t\r") == std::string::npos) continue;
    const auto j = nlohmann::json::parse(line, nullptr, false);
    Prompt p;
    if (j.is_object() && j.contains("prompt") && j["prompt"].is_string()) {
      p.text = j["prompt"].get<std::string>();
      p.dialog = {{"user", p.text}};
    } else if (j.is_object() && j.contains("messages") && j["messages"].is_array() && !j["messages"].empty()) {
      for (const auto& m : j["messages"]) {
        if (!m.is_object() || !m.contains("role") || !m["role"].is_string() || !m.contains("content") || !m["content"].is_string()) {
          fail(Exit::bad_data, "{}:{}: a message needs \"role\" and \"content\"", file, number);
        }
        p.dialog.push_back({m["role"].get<std::string>(), m["content"].get<std::string>()});
      }
      if (p.dialog.back().role == "assistant") p.dialog.pop_back();  // a training row: its own answer is not shown to the model
      if (p.dialog.empty()) fail(Exit::bad_data, "{}:{}: the row has no message to answer", file, number);
    } else {
      fail(Exit::bad_data, "{}:{}: expected {{\"prompt\": …}} or {{\"messages\": […]}}", file, number);
    }
    prompts.push_back(std::move(p));
  }
  if (prompts.empty()) fail(Exit::bad_data, "{} holds no prompt", file);
  return prompts;
}

ordered_json row_of(const Prompt& prompt, const std::string& answer) {
  ordered_json messages = ordered_json::array();
  for (const Message& m : prompt.dialog) messages.push_back({{"role", m.role}, {"content", m.content}});
  messages.push_back({{"role", "assistant"}, {"content", answer}});
  return {{"messages", messages}};
}

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
  const MeshShape shape{process.world.size, 1, 1};
  Mesh mesh = launched_by_mpi() ? make_mpi_mesh(shape) : make_self_mesh();
  const bool first = process.world.rank == 0;
  const Sampling sampling{a.greedy || (!a.temperature && !a.top_p), static_cast<float>(a.temperature.value_or(1.0)), static_cast<float>(a.top_p.value_or(1.0)), a.seed};

  std::vector<Prompt> prompts;
  if (!a.prompts.empty()) {
    prompts = read_prompts(a.prompts);
  } else {
    prompts = {{{{"user", a.prompt}}, a.prompt}};
  }
  const int64_t together = std::min<int64_t>(8, static_cast<int64_t>(prompts.size()));
  const ModelConfig config = read_model_config(a.model.model);
  // The cache needs room for the longest prompt and its answer.
  const Tokenizer tokenizer = Tokenizer::open(a.model.model);
  int64_t longest = 0;
  for (const Prompt& p : prompts) {
    for (const Message& m : p.dialog) longest = std::max<int64_t>(longest, static_cast<int64_t>(tokenizer.encode(m.content).size()));
  }
  int64_t capacity = std::min(config.max_positions, (longest + a.max_tokens + 256) * 2);
  Inference inference({a.model.model, a.model.adapter.empty() ? std::nullopt : std::optional<fs::path>(a.model.adapter), dtype_of_name(a.model.dtype), together, capacity}, mesh,
                      process.threads);

  if (a.prompts.empty()) {
    const std::vector<int32_t> ids = inference.prompt_ids(prompts.front().dialog, a.raw);
    const Inference::Question question[] = {{ids, 0}};
    const Inference::Answer answer = inference.answer(question, sampling, a.max_tokens).front();
    if (!first) return Exit::done;
    const std::string text = inference.tokenizer().decode(answer.ids);
    if (a.json) {
      std::cout << ordered_json{{"prompt_ids", ids}, {"ids", answer.ids}, {"text", text}, {"finish_reason", answer.stopped ? "stop" : "length"}}.dump() << '\n';
    } else {
      std::cout << text << '\n';
    }
    return Exit::done;
  }

  size_t done = 0;
  std::ofstream file;
  if (!a.out.empty()) {
    if (first && a.resume) drop_half_line(a.out);
    mesh.world->barrier();
    done = a.resume ? lines_of(a.out) : 0;
    mesh.world->barrier();
    if (first) {
      file.open(a.out, a.resume ? std::ios::app : std::ios::trunc);
      if (!file) fail(Exit::io, "cannot write {}", a.out);
    }
  }
  std::ostream& out = a.out.empty() ? std::cout : file;
  for (size_t begin = done; begin < prompts.size(); begin += static_cast<size_t>(together)) {
    std::vector<Inference::Question> questions;
    for (size_t i = begin; i < std::min(prompts.size(), begin + static_cast<size_t>(together)); ++i) questions.push_back({inference.prompt_ids(prompts[i].dialog, a.raw), i});
    const std::vector<Inference::Answer> answers = inference.answer(questions, sampling, a.max_tokens);
    if (!first) continue;
    for (size_t i = 0; i < answers.size(); ++i) out << row_of(prompts[begin + i], inference.tokenizer().decode(answers[i].ids)).dump() << '\n' << std::flush;
    if (!out) fail(Exit::io, "cannot write the answers; is the disk full?");
  }
  return Exit::done;
}

}  // namespace drover
