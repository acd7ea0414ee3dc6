#include "trainer/generation/sample_answers.h"

#include <nlohmann/json.hpp>

#include "data/tokenizer.h"
#include "kernels/comm/agree.h"
#include "kernels/comm/gather.h"
#include "model/generation/answers.h"

namespace drover {

namespace {

// The replica's model, with a cache in its scratch for as long as this lives.
struct Answering {
  Answering(Replica& replica, const AnswerCapacity& capacity)
      : frame(replica.arenas.scratch),
        settings{.sequences = capacity.sequences},
        pool(replica.stage, replica.arenas.scratch, settings.sequences * KvPool::blocks_for(capacity.tokens)),
        decoder(replica.stage, replica.device.mesh, replica.backend(), pool, replica.arenas.scratch) {}

  Frame frame;
  BatcherSettings settings;
  KvPool pool;
  Decoder decoder;
};

}  // namespace

void rehearse_sample_answers(Replica& replica, const AnswerCapacity& capacity) {
  Answering answering(replica, capacity);
  Batcher::rehearse(answering.decoder, answering.settings);
}

std::vector<std::string> sample_answers(Replica& replica, const AnswerCapacity& capacity,
                                        const std::vector<SamplePrompt>& prompts, const Tokenizer& tokenizer,
                                        const std::vector<int32_t>& stop_ids, const GiveUp& give_up) {
  const Mesh& mesh = replica.device.mesh;
  Answering answering(replica, capacity);
  Batcher batcher(answering.decoder, answering.settings);
  std::vector<size_t> share;
  std::vector<Request> requests;
  const size_t first = static_cast<size_t>(mesh.position.dp()), step = static_cast<size_t>(mesh.shape.dp());
  for (size_t i = first; i < prompts.size(); i += step) {
    share.push_back(i);
    requests.push_back({.ids = prompts[i].ids, .stop_ids = stop_ids, .max_tokens = kSampleAnswerTokens, .number = i});
  }
  // All ranks of a replica give up together: those of a stage agree, then the stages.
  const auto gives_up = [&] { return largest(mesh.pp(), give_up(mesh.tp()) ? 1 : 0) == 1; };
  const std::vector<Answer> answers = answer_all(batcher, std::move(requests), {.gives_up = gives_up});

  together(*mesh.world, [&] {
    for (const Answer& answer : answers) {
      if (answer.error) throw *answer.error;
    }
  });
  nlohmann::json mine = nlohmann::json::array();
  const bool speaks = mesh.position.tp() == 0 && mesh.position.pp() == 0;  // for its replica
  for (size_t i = 0; speaks && i < answers.size(); ++i) {
    if (answers[i].complete()) mine.push_back({share[i], tokenizer.decode(answers[i].ids)});
  }
  std::vector<std::string> rows(prompts.size());
  for (const std::string& part :
       mesh.world->gather_strings(mine.dump(-1, ' ', false, nlohmann::json::error_handler_t::replace))) {
    for (const auto& entry : nlohmann::json::parse(part)) {
      const size_t i = entry[0].get<size_t>();
      rows[i] = answered_row(prompts[i].prompt, entry[1].get<std::string>());
    }
  }
  return rows;
}

}  // namespace drover
