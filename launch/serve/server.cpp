#include "launch/serve/server.h"

#include <thread>

#include "kernels/base/log.h"
#include "kernels/comm/agree.h"
#include "launch/open_device.h"
#include "launch/openai/api_error.h"
#include "launch/openai/field_table.h"
#include "launch/serve/api.h"
#include "launch/serve/follower.h"
#include "launch/serve/load_adapter.h"
#include "launch/serve/server_metrics.h"
#include "model/generation/answers.h"
#include "trainer/export/adapter_effect.h"
#include "trainer/generation/generation_defaults.h"
#include "trainer/generation/other_base.h"
#include "trainer/run/stop_signal.h"
#include "trainer/setup/engine_settings.h"
#include "trainer/setup/inputs.h"

namespace drover {

namespace {

using namespace std::chrono_literals;

// What requests may ask for at most, which scratch is planned for.
Sampling dearest() {
  Sampling most{.repetition_penalty = 2, .logprobs = openai::kMostLogprobs};
  for (int32_t i = 0; i < openai::kMostBiases; ++i) most.logit_bias.push_back({i, 1});
  return most;
}

InferenceSettings inference_settings(const ServeSettings& s, const ModelConfig& config) {
  InferenceSettings inference{.model = s.recipe.model.path,
                              .dtype = dtype_of(s.recipe.train.dtype),
                              .weights = weights_as(s.recipe.model.weights),
                              .streamed = s.recipe.memory.weights == WeightHome::host};
  for (const auto& [name, directory] : s.adapters) inference.named_adapters.push_back(directory);
  if (s.loads_adapters()) inference.later_rank = s.max_adapter_rank;
  inference.capacity_tokens = s.max_context > 0 ? s.max_context : config.max_positions;
  inference.batcher = {.sequences = s.sequences,
                       .pass_rows = std::max(s.pass_tokens, s.sequences + BatcherSettings::kChunk),
                       .dearest = dearest(),
                       .prompt_logprobs = openai::kMostLogprobs,
                       .filters = Grammars::available()};
  inference.cache =
      s.kv_bytes > 0 ? CacheMemory{.bytes = s.kv_bytes} : CacheMemory{.share = ServeSettings::kAutomaticKvShare};
  return inference;
}

// What is known before there are weights.
struct Base {
  explicit Base(const ServeSettings& s)
      : config(read_model_config(s.recipe.model.path)), tokenizer(Tokenizer::open(tokenizer_directory(s.recipe))) {
    const GenerationDefaults own = generation_defaults(s.recipe.model.path);
    defaults = {.temperature = own.temperature, .top_p = own.top_p, .vocab_size = config.vocab};
  }
  ModelConfig config;
  Tokenizer tokenizer;
  openai::RequestDefaults defaults;
  Grammars grammars{tokenizer, config.vocab};
};

ServedModelPtr served_base(const ServeSettings& s, const Base& base) {
  auto model = std::make_shared<ServedModel>();
  model->id = s.name;
  model->root = s.recipe.model.path;
  model->manner = manner_of({s.recipe, base.config, base.tokenizer}, s.recipe.model.path);
  model->created = std::time(nullptr);
  return model;
}

// What rank 0 has besides: names, routes, HTTP.
class Front {
 public:
  Front(const ServeSettings& s, Base& base, Inference& inference, PassLoop& loop)
      : loop_(loop),
        models_(served_base(s, base)),
        metrics_(s.name),
        serving_{.settings = s,
                 .config = base.config,
                 .tokenizer = base.tokenizer,
                 .models = models_,
                 .loop = loop,
                 .metrics = metrics_,
                 .grammars = base.grammars,
                 .defaults = base.defaults,
                 .context = inference.longest()},
        api_(serving_, s.api_keys ? std::optional(ApiKeys::read(*s.api_keys)) : std::nullopt) {
    for (size_t i = 0; i < s.adapters.size(); ++i) {
      const auto& [name, directory] = s.adapters[i];
      const auto model = served_adapter(serving_, name, directory);
      model->slot = inference.slot_of(i);
      model->weights = adapter_hash(directory);
      model->released = [&loop, slot = model->slot] { loop.detach(slot); };
      models_.put(model);
    }
    const auto error_body = [](unsigned status, const std::string& message) {
      const char* type = status < 500 ? "invalid_request_error" : "server_error";
      return openai::ApiError(status, type, "", "", message).body();
    };
    http_.emplace(HttpServer::Settings{s.host, s.port, s.limits, error_body},
                  [this](const HttpRequest& request, std::shared_ptr<Exchange> exchange) {
                    api_.handle(request, std::move(exchange));
                  });
    if (s.follow) follower_.emplace(serving_, s.follow->first, s.follow->second);
  }
  ~Front() {  // before what they use
    follower_.reset();
    http_.reset();
  }

  uint16_t port() const { return http_->port(); }
  const ServedModels& models() const { return models_; }

  // Between two passes. When a stop was asked for: no more requests; the loop ends with the last one that was taken.
  void look() {
    if (ending_ || !Serving::draining()) return;
    ending_ = api_.after_requests([this] { loop_.end(); });
  }
  // What was answered is still on its way to slow readers.
  void finish() {
    http_->drain();
    int looks = 0;
    do std::this_thread::sleep_for(100ms);
    while (++looks < 300 && !http_->idle());
  }

 private:
  PassLoop& loop_;
  ServedModels models_;
  ServerMetrics metrics_;
  Serving serving_;
  Api api_;
  bool ending_ = false;
  std::optional<HttpServer> http_;
  std::optional<Follower> follower_;
};

// Kernels are made and memory is touched before somebody waits for it.
void warm_up(Inference& inference) {
  const int64_t tokens = std::min<int64_t>(BatcherSettings::kChunk, inference.longest() - 2);
  std::vector<int32_t> ids;
  for (int64_t i = 0; i < tokens; ++i) ids.push_back(static_cast<int32_t>((i + 1) * 7919 % inference.config().vocab));
  answer_all(inference.batcher(), {{.ids = ids, .max_tokens = 2, .slot = kBaseModel}});
}

void say_what_is_served(const ServeSettings& s, const Front& front, const Inference& inference) {
  std::string adapters;
  for (const ServedModelPtr& model : front.models().list()) {
    if (!model->parent.empty()) adapters += ", " + model->id;
  }
  const KvPool& pool = inference.pool();
  log::info(
      "keys and values: {:.2f} GiB on a rank, for {} tokens; an answer with its prompt has at most {}, {} are "
      "answered at once",
      static_cast<double>(inference.cache_bytes()) / (1 << 30), pool.tokens(), inference.longest(), s.sequences);
  const bool open = s.host != "127.0.0.1" && s.host != "localhost" && s.host != "::1";
  if (open && !s.api_keys) {
    log::warn(
        "{} can be reached from other machines, and anybody who reaches it may ask; name --api-keys FILE, or keep "
        "it behind a proxy",
        s.host);
  }
  if (s.follow) {
    log::info("following {}: each new checkpoint's adapter becomes {} and {}@STEP", s.follow->second.string(),
              s.follow->first, s.follow->first);
  }
  const std::string host = s.host.find(':') == std::string::npos ? s.host : "[" + s.host + "]";
  log::info("serving {}{} on http://{}:{}/ (a page to chat; /v1 for clients of OpenAI's API)", s.name, adapters, host,
            front.port());
}

}  // namespace

Exit serve(const Process& process, const MeshShape& shape, const ServeSettings& s) {
  const Mesh mesh = make_mesh(shape);
  std::optional<Base> base;
  together(*mesh.world, [&] { base.emplace(s); });
  const auto open = [&](const Mesh& host) { return open_device(host, s.recipe, process); };
  std::vector<fs::path> adapters;
  for (const auto& [name, directory] : s.adapters) adapters.push_back(directory);
  warn_of_other_base(adapters, s.recipe, mesh, open);
  Inference inference(inference_settings(s, base->config), mesh, open);
  Front* looking = nullptr;
  const auto make_filter = [&](const std::string& form, std::span<const int32_t> stop_ids) {
    return base->grammars.filter(form, stop_ids);
  };
  PassLoop loop(inference, *mesh.world, make_filter, [&] { looking->look(); });
  warm_up(inference);
  std::optional<Front> front;
  together(*mesh.world, [&] {
    if (mesh.world->rank() != 0) return;
    for (const auto& [name, directory] : s.adapters) {
      say_effect(directory, s.recipe.model.path);
    }
    looking = &front.emplace(s, *base, inference, loop);
    say_what_is_served(s, *front, inference);
  });
  note_stops();
  loop.run();
  if (front) front->finish();
  return Exit::done;
}

}  // namespace drover
