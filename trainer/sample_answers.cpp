#include "trainer/sample_answers.h"

#include <nlohmann/json.hpp>

#include "trainer/answering.h"

namespace drover {

std::vector<std::string> sample_answers(Replica& replica, const AnswerCapacity& capacity,
                                        const std::vector<SamplePrompt>& prompts, const Tokenizer& tokenizer,
                                        const std::vector<int32_t>& stop_ids, const GiveUp& give_up) {
  const Mesh& mesh = replica.device.mesh;
  Arena& scratch = replica.arenas.scratch;
  Frame frame(scratch);
  Decoder decoder(replica.stage, replica.backend(), scratch, scratch, capacity.sequences, capacity.tokens);
  Answering answering(decoder, stop_ids);
  nlohmann::json mine = nlohmann::json::array();
  std::vector<size_t> share;
  const size_t first = static_cast<size_t>(mesh.position.dp()), step = static_cast<size_t>(mesh.shape.dp());
  for (size_t i = first; i < prompts.size(); i += step) share.push_back(i);
  for (size_t begin = 0; begin < share.size(); begin += static_cast<size_t>(capacity.sequences)) {
    if (give_up(mesh.tp())) break;
    std::vector<Answering::Question> questions;
    for (size_t i = begin; i < std::min(share.size(), begin + static_cast<size_t>(capacity.sequences)); ++i) questions.push_back({prompts[share[i]].ids, share[i]});
    const std::vector<Answering::Answer> answers = answering.answer(questions, {.greedy = true}, kSampleAnswerTokens);
    for (size_t i = 0; i < answers.size(); ++i) mine.push_back({questions[i].number, tokenizer.decode(answers[i].ids)});
  }
  if (mesh.position.tp() != 0) mine = nlohmann::json::array();
  std::vector<std::string> rows(prompts.size());
  for (const std::string& part : mesh.world->gather_strings(mine.dump(-1, ' ', false, nlohmann::json::error_handler_t::replace))) {
    for (const auto& entry : nlohmann::json::parse(part)) {
      const size_t i = entry[0].get<size_t>();
      rows[i] = answered_row(prompts[i].prompt, entry[1].get<std::string>());
    }
  }
  return rows;
}

}  // namespace drover
