#include "configs/foreign.h"

#include <algorithm>
#include <vector>

#include "configs/document.h"
#include "kernels/base/error.h"

namespace drover {

namespace {

constexpr const char *kTorchtune = "torchtune", *kAxolotl = "Axolotl", *kFactory = "LLaMA-Factory", *kPeft = "PEFT";
constexpr const char *kAxolotlFactory = "Axolotl's and LLaMA-Factory", *kTuneFactory = "torchtune's and LLaMA-Factory",
                     *kAll = "torchtune's, Axolotl's and LLaMA-Factory";

struct Foreign {
  const char *name, *program, *ours;
};
constexpr Foreign kForeign[] = {
    // model
    {"checkpoint_dir", kTorchtune, "model.path"},
    {"checkpointer", kTorchtune, "model.path"},
    {"base_model", kAxolotl, "model.path"},
    {"model_name_or_path", kFactory, "model.path"},
    {"base_model_name_or_path", kPeft, "model.path"},
    {"tokenizer_config", kAxolotl, "model.tokenizer"},
    // method and lora
    {"adapter", kAxolotl, "method"},
    {"finetuning_type", kFactory, "method"},
    {"lora_r", kAxolotl, "lora.r"},
    {"lora_rank", kTuneFactory, "lora.r"},
    {"rank", "MLX-LM", "lora.r"},
    {"lora_alpha", kAll, "lora.alpha"},
    {"lora_dropout", kAll, "lora.dropout"},
    {"lora_attn_modules", kTorchtune, "lora.target_modules"},
    {"apply_lora_to_mlp", kTorchtune, "lora.target_modules"},
    {"lora_target_modules", kAxolotl, "lora.target_modules"},
    {"lora_target_linear", kAxolotl, "lora.target_modules"},
    {"lora_target", kFactory, "lora.target_modules"},
    {"peft_use_rslora", kAxolotl, "lora.use_rslora"},
    {"lora_model_dir", kAxolotl, "lora.init_from"},
    {"adapter_name_or_path", kFactory, "lora.init_from"},
    {"load_in_4bit", "Axolotl's and Hugging Face", "model.weights: nf4"},
    {"load_in_8bit", "Axolotl's and Hugging Face", "int8, which there is not; model.weights: fp8 takes as much memory"},
    {"bnb_4bit_quant_type", "Hugging Face", "model.weights: nf4"},
    {"bnb_4bit_use_double_quant", "Hugging Face", "model.weights: nf4, which is double quantised"},
    {"bnb_4bit_compute_dtype", "Hugging Face", "train.dtype"},
    {"quantization", "torchtune's and Unsloth", "model.weights"},
    {"quantization_bit", kFactory, "model.weights: nf4"},
    {"quantization_method", kFactory, "model.weights"},
    {"quantize_base", kTorchtune, "model.weights: nf4"},
    // data
    {"dataset", kTuneFactory, "data.train"},
    {"datasets", kAxolotl, "data.train"},
    {"test_datasets", kAxolotl, "data.validation"},
    {"val_set_size", kAxolotl, "data.validation: {share: …}"},
    {"val_size", kFactory, "data.validation: {share: …}"},
    {"dataset_val", kTorchtune, "data.validation"},
    {"eval_dataset", kFactory, "data.validation"},
    {"chat_template", kAxolotl, "data.template"},
    {"max_seq_len", kTorchtune, "data.max_length"},
    {"sequence_len", kAxolotl, "data.max_length"},
    {"cutoff_len", kFactory, "data.max_length"},
    {"packed", kTorchtune, "data.packing"},
    {"sample_packing", kAxolotl, "data.packing"},
    {"train_on_input", kTorchtune, "data.train_on: all"},
    {"train_on_inputs", kAxolotl, "data.train_on: all"},
    {"train_on_prompt", kFactory, "data.train_on: all"},
    {"mask_history", kFactory, "data.train_on: last"},
    // train
    {"batch_size", kTorchtune, "train.micro_batch_size"},
    {"per_device_train_batch_size", kFactory, "train.micro_batch_size"},
    {"gradient_accumulation_steps", kAll, "train.global_batch_size divided by micro_batch_size · dp"},
    {"num_epochs", kAxolotl, "train.epochs"},
    {"num_train_epochs", kFactory, "train.epochs"},
    {"max_steps_per_epoch", kTorchtune, "train.max_steps"},
    {"bf16", kAxolotlFactory, "train.dtype: bf16"},
    {"fp8", kAxolotlFactory, "train.matmul: fp8, over model.weights: fp8"},
    {"fp8_backend", kFactory, "train.matmul: fp8, which has one"},
    {"fp8_recipe", "Megatron", "train.matmul: fp8, which is scaled as the weights are"},
    {"float8", "torchtitan", "train.matmul: fp8, over model.weights: fp8"},
    {"enable_fp8_training", kTorchtune, "train.matmul: fp8, over model.weights: fp8"},
    {"fp8_recipe_name", kTorchtune, "train.matmul: fp8, which is scaled as the weights are"},
    {"float8_config", "torchao", "train.matmul: fp8, over model.weights: fp8"},
    // optim
    {"lr", kTorchtune, "optim.learning_rate"},
    {"lr_scheduler", "torchtune's and Axolotl", "optim.schedule"},
    {"lr_scheduler_type", kFactory, "optim.schedule"},
    {"num_warmup_steps", kTorchtune, "optim.warmup_steps"},
    {"loraplus_lr_ratio", kAxolotlFactory, "optim.lora_plus_ratio"},
    {"clip_grad_norm", kTorchtune, "optim.max_grad_norm"},
    // memory
    {"enable_activation_checkpointing", kTorchtune, "memory.activation_checkpointing: full"},
    {"gradient_checkpointing", kAxolotlFactory, "memory.activation_checkpointing: full"},
    {"fsdp_offload_params", kAxolotl, "memory.weights: host"},
    {"fsdp_cpu_offload", kTorchtune, "memory.weights: host"},
    {"cpu_offload", "accelerate's and Hugging Face", "memory.weights: host"},
    {"offload_params", "FSDP", "memory.weights: host"},
    {"offload_param", "DeepSpeed", "memory.weights: host"},
    {"offload_folder", "accelerate's and Hugging Face", "memory.weights: host"},
    // eval, checkpoint, log, output
    {"run_val_every_n_steps", kTorchtune, "eval.every_steps"},
    {"eval_steps", kAxolotlFactory, "eval.every_steps"},
    {"save_steps", kAxolotlFactory, "checkpoint.every_steps"},
    {"save_total_limit", kAxolotlFactory, "checkpoint.keep"},
    {"resume_from_checkpoint", kAll, "checkpoint.resume"},
    {"log_every_n_steps", kTorchtune, "log.every_steps"},
    {"logging_steps", kAxolotlFactory, "log.every_steps"},
    {"output_dir", kAll, "output.dir"},
};

size_t edit_distance(const std::string& a, const std::string& b) {
  std::vector<size_t> row(b.size() + 1);
  for (size_t j = 0; j <= b.size(); ++j) row[j] = j;
  for (size_t i = 1; i <= a.size(); ++i) {
    size_t diagonal = row[0];
    row[0] = i;
    for (size_t j = 1; j <= b.size(); ++j) {
      const size_t above = row[j];
      row[j] = std::min({above + 1, row[j - 1] + 1, diagonal + (a[i - 1] == b[j - 1] ? 0 : 1)});
      diagonal = above;
    }
  }
  return row[b.size()];
}

std::string last_part(const std::string& key) { return key.substr(key.rfind('.') + 1); }

}  // namespace

std::string about_unknown_key(const std::string& key, const std::set<std::string>& known) {
  const std::string name = shown(key), last = last_part(key);
  if (key.size() > 200) return name + " is unknown; `drover train --help-keys` lists all keys";
  const auto foreign =
      std::find_if(std::begin(kForeign), std::end(kForeign), [&](const Foreign& f) { return last == f.name; });
  if (foreign != std::end(kForeign))
    return fmt::format("{} is unknown; it is {}'s name for {}", name, foreign->program, foreign->ours);

  const size_t sectioned = key.find('.') == std::string::npos ? 0 : 1;
  std::string nearest;
  size_t best = std::string::npos;
  for (const std::string& ours : known) {
    if (key.starts_with(ours + "."))
      return fmt::format("{} is unknown; {} has no parts with keys of their own, give its whole value", name, ours);
    const size_t distance = std::min(edit_distance(key, ours), edit_distance(last, last_part(ours)) + sectioned);
    if (distance < best) best = distance, nearest = ours;
  }
  if (best <= std::max<size_t>(2, last.size() / 2))
    return fmt::format("{} is unknown; did you mean {}?", name, nearest);
  return name + " is unknown; `drover train --help-keys` lists all keys";
}

std::string did_you_mean(const std::string& name, const std::vector<std::string>& allowed) {
  if (name.size() > 200) return {};
  const auto nearer = [&](const std::string& a, const std::string& b) {
    return edit_distance(name, a) < edit_distance(name, b);
  };
  const auto nearest = std::min_element(allowed.begin(), allowed.end(), nearer);
  if (nearest == allowed.end() || edit_distance(name, *nearest) > 2) return {};
  return fmt::format("; did you mean {}?", *nearest);
}

}  // namespace drover
