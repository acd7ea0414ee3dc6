#include "trainer/setup/engine_settings.h"

#include <algorithm>
#include <cmath>

#include "data/loader.h"
#include "kernels/base/error.h"

namespace drover {

DType dtype_of(Precision precision) { return precision == Precision::bf16 ? DType::bf16 : DType::f32; }

WeightsAs weights_as(WeightFormat format) {
  switch (format) {
    case WeightFormat::as_is: return WeightsAs::as_is;
    case WeightFormat::bf16: return WeightsAs::dense;
    case WeightFormat::fp8: return WeightsAs::fp8;
    case WeightFormat::nf4: return WeightsAs::nf4;
  }
  require(false, "every word of model.weights has a meaning");
  return {};
}

Products products_of(MatmulNumbers numbers) {
  return numbers == MatmulNumbers::fp8 ? Products::fp8 : Products::widened;
}

int64_t total_steps(const Recipe& recipe, int64_t steps_per_epoch) {
  if (recipe.train.max_steps) return *recipe.train.max_steps;
  return std::max<int64_t>(
      1,
      static_cast<int64_t>(std::ceil(recipe.train.epochs.value_or(1) * static_cast<double>(steps_per_epoch) - 1e-9)));
}

OptimizerSettings optimizer_settings(const OptimSection& o, int64_t total_steps) {
  std::vector<double> rates(kFactors.size(), 1);
  rates[static_cast<size_t>(Factor::b)] = o.lora_plus_ratio;
  const int64_t warmup = o.warmup_steps ? *o.warmup_steps : warmup_steps_of(o.warmup_ratio.value_or(0), total_steps);
  return {.learning_rate = {o.schedule, o.learning_rate, warmup, total_steps, o.min_lr_ratio},
          .beta1 = o.betas[0],
          .beta2 = o.betas[1],
          .eps = o.eps,
          .weight_decay = o.weight_decay,
          .max_grad_norm = o.max_grad_norm,
          .group_rates = std::move(rates)};
}

void fit_to(const Device& device, EngineSettings& settings) {
  settings.traits = device.backend->traits();
  settings.overlaps_sums = device.mesh.tp().overlaps_sums();
}

double head_cost_in_layers(const ModelConfig& m) {
  int64_t layer = 0;
  for (Projection p : kAllProjections) layer += shape_of(m, p).out * shape_of(m, p).in;
  return static_cast<double>(m.vocab * m.hidden) / static_cast<double>(layer);
}

EngineSettings engine_settings(const Recipe& recipe, const ModelConfig& model, const AdapterLayout& layout,
                               const MeshShape& mesh, const PreparedData* data) {
  if (const std::string why = why_not_tp(model, mesh.tp()); !why.empty()) fail(Fault::bad_recipe, "{}", why);
  EngineSettings s;
  s.model = model;
  s.adapter = layout;
  s.partition = partition_layers(model.layers, mesh.pp(), head_cost_in_layers(model));
  s.dtype = dtype_of(recipe.train.dtype);
  s.weights = weights_as(recipe.model.weights), s.products = products_of(recipe.train.matmul);
  s.streamed = recipe.memory.weights == WeightHome::host;
  s.max_positions = recipe.data.max_length;
  const int64_t full = recipe.data.max_length * recipe.train.micro_batch_size;
  s.capacity.micro_batch = {.tokens = full, .trained_tokens = full};
  s.capacity.local_micro_batches = recipe.train.global_batch_size / (recipe.train.micro_batch_size * mesh.dp());
  s.deterministic = recipe.train.deterministic;
  s.recompute = recipe.memory.activation_checkpointing == ActivationCheckpointing::full;
  s.dropout = static_cast<float>(recipe.lora.dropout);
  s.seed = static_cast<uint64_t>(recipe.train.seed);
  if (recipe.data.max_length > model.max_positions) {
    fail(Fault::bad_recipe, "data.max_length {} is more than the model's max_position_embeddings {}",
         recipe.data.max_length, model.max_positions);
  }
  if (data == nullptr) return s;

  check_ids(data->train, model, "the training data");
  if (data->validation) check_ids(*data->validation, model, "the validation data");
  for (const SamplePrompt& p : data->prompts) check_ids(p.ids, model, p.prompt.where);
  const LoaderSettings loading{recipe.train.micro_batch_size,
                               recipe.train.global_batch_size,
                               recipe.data.shuffle,
                               static_cast<uint64_t>(recipe.train.seed),
                               0,
                               1};
  const Loader loader(data->train, loading);
  const int64_t steps = total_steps(recipe, loader.steps_per_epoch());
  s.optimizer = optimizer_settings(recipe.optim, steps);
  s.capacity.micro_batch = loader.largest_micro_batch(steps);
  s.max_positions = data->train.longest_document();
  if (data->validation) {
    const TokenStore& v = *data->validation;
    LoaderSettings in_order = loading;
    in_order.shuffle = false;
    const Loader validation(v, in_order);
    s.capacity.evaluation = validation.largest_micro_batch(validation.steps_per_epoch());
    s.max_positions = std::max(s.max_positions, v.longest_document());
  }
  if (data->prompts.empty()) return s;

  int64_t longest = 0;
  for (const SamplePrompt& p : data->prompts) longest = std::max(longest, static_cast<int64_t>(p.ids.size()));
  const int64_t tokens = longest + kSampleAnswerTokens;
  if (tokens > model.max_positions) {
    fail(Fault::bad_data, "{}: a prompt of {} tokens and an answer of {} do not fit the model's {} positions",
         *recipe.eval.prompts, longest, kSampleAnswerTokens, model.max_positions);
  }
  const int64_t share = (static_cast<int64_t>(data->prompts.size()) + mesh.dp() - 1) / mesh.dp();
  s.capacity.answers = {.sequences = std::min(kSampleSequences, share), .tokens = tokens};
  s.max_positions = std::max(s.max_positions, tokens);
  return s;
}

}  // namespace drover
