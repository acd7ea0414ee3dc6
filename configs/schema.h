// The recipe: every setting of a run, once. Each section lists its fields to a visitor; reading, checking, overriding,
// printing and documenting a recipe are visitors. A field's Info says what is allowed; choices marked `later` are
// refused as not built yet.
#pragma once
#include <algorithm>
#include <cstdint>
#include <limits>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "configs/choices.h"

namespace drover {

struct Info {
  const char* help = "";
  double least = -std::numeric_limits<double>::infinity(), most = std::numeric_limits<double>::infinity();
  std::vector<const char*> allowed = {};                          // of a choice: words of its enum
  std::vector<const char*> later = {};                            // known, not built yet
  std::vector<std::pair<const char*, const char*>> instead = {};  // words of other programs, and what to write for them
  bool required = false;
  bool identity = false;    // must not change when a run is resumed
  bool whole = false;       // a pattern's numbers are whole
  bool path = false;        // relative ones start at the current directory; `allowed`: words that are no path
  bool hub = false;         // a directory that may be in the local hub cache under a hub's name
  bool of_adapter = false;  // supplied by lora.init_from where that is given and the key is not
};

// lora.target_modules: a list of names, or one string: all-linear or a regular expression over module paths.
struct TargetModules {
  std::vector<std::string> names;      // when it is a list
  std::string pattern = "all-linear";  // else
  bool operator==(const TargetModules&) const = default;
};
// log.trace: A..B, or a list of steps; with neither none. Steps count from 1.
struct TracedSteps {
  int64_t first = 1, last = 0;  // A..B
  std::vector<int64_t> listed;  // when it is a list
  bool empty() const { return last < first && listed.empty(); }
  bool contains(int64_t step) const {
    return (step >= first && step <= last) || std::find(listed.begin(), listed.end(), step) != listed.end();
  }
  bool operator==(const TracedSteps&) const = default;
};
using Pattern = std::vector<std::pair<std::string, double>>;  // in the file's order: the first that matches counts

// What a row of a data file is; for data.format and for the format of one file.
inline const Info kRowFormat = {.help = "what a row is; auto: what its fields say, and that is printed",
                                .allowed = words_of<RowFormat>(),
                                .identity = true};

struct DataFile {
  std::string path;  // a file, a directory of files, or a pattern such as shards/*.jsonl
  RowFormat format = RowFormat::automatic;
  double weight = 1, repeat = 1;
  bool operator==(const DataFile&) const = default;
};
struct Validation {
  std::vector<DataFile> files;
  double share = 0;  // of the training rows, where no file is given
  bool operator==(const Validation&) const = default;
};

struct ModelSection {
  std::string path;
  std::optional<std::string> tokenizer;
  WeightFormat weights = WeightFormat::as_is;
  bool operator==(const ModelSection&) const = default;
  template <typename V>
  void fields(V& v) {
    v("path", path,
      {.help = "the model's directory, in Hugging Face's layout", .required = true, .path = true, .hub = true});
    v("tokenizer", tokenizer,
      {.help = "the tokenizer's directory, where it is not the model's", .path = true, .hub = true});
    v("weights", weights,
      {.help = "what the frozen linears are in memory: as_is: what the files hold, 16- and 32-bit numbers in "
               "train.dtype; bf16: quantised files dequantised to train.dtype; fp8, nf4: others quantised as they load",
       .allowed = words_of<WeightFormat>(),
       .identity = true});
  }
};

struct LoraSection {
  int64_t r = 16;
  double alpha = 32, dropout = 0;
  TargetModules target_modules;
  bool use_rslora = false;
  Pattern rank_pattern, alpha_pattern;
  std::optional<std::string> init_from;
  bool operator==(const LoraSection&) const = default;
  template <typename V>
  void fields(V& v) {
    v("r", r, {.help = "rank of the adapters", .least = 1, .most = 4096, .identity = true, .of_adapter = true});
    v("alpha", alpha,
      {.help = "the adapters are scaled by alpha/r", .least = 1e-6, .most = 1e6, .identity = true, .of_adapter = true});
    v("dropout", dropout,
      {.help = "share of an adapter's inputs that is dropped in training", .least = 0, .most = 0.99, .identity = true});
    v("target_modules", target_modules,
      {.help =
           "all-linear (the seven of a block), a list of names such as q_proj or lm_head, or a regular expression over "
           "module paths",
       .identity = true,
       .of_adapter = true});
    v("use_rslora", use_rslora, {.help = "scale by alpha/sqrt(r) instead", .identity = true, .of_adapter = true});
    v("rank_pattern", rank_pattern,
      {.help = "module pattern: rank, where it differs from r",
       .least = 1,
       .most = 4096,
       .identity = true,
       .whole = true,
       .of_adapter = true});
    v("alpha_pattern", alpha_pattern,
      {.help = "module pattern: alpha, where it differs",
       .least = 1e-6,
       .most = 1e6,
       .identity = true,
       .of_adapter = true});
    v("init_from", init_from,
      {.help = "continue from the adapter in this directory", .identity = true, .path = true, .hub = true});
  }
};

struct DataSection {
  std::vector<DataFile> train;
  Validation validation;
  RowFormat format = RowFormat::automatic;
  FieldNames fields_of_rows;
  bool special = false;
  std::string chat_template = word_of(TemplateChoice::automatic);
  std::string template_date = "26 Jul 2024";
  TrainOn train_on = TrainOn::assistant;
  BadRows bad_rows = BadRows::error;
  int64_t max_length = 2048;
  bool packing = true, shuffle = true;
  bool operator==(const DataSection&) const = default;
  template <typename V>
  void fields(V& v) {
    v("train", train,
      {.help = "a file, a directory or a pattern (shards/*.jsonl), or a list of {path, format, weight, repeat}",
       .required = true,
       .identity = true});
    v("validation", validation,
      {.help = "paths as in data.train, without repeat, or {share: 0.05} of the training rows"});
    v("format", format, kRowFormat);
    v("fields", fields_of_rows,
      {.help = "our name of a field: the file's name, as in {text: content}", .identity = true});
    v("special", special,
      {.help = "control tokens that are written in texts are control tokens, not letters", .identity = true});
    v("template", chat_template,
      {.help = "the chat format; auto: the tokenizer directory's own; or a file or directory with a Jinja template",
       .allowed = words_of<TemplateChoice>(),
       .identity = true,
       .path = true});
    v("template_date", template_date, {.help = "the date that Llama 3.1's system block states", .identity = true});
    v("train_on", train_on, {.help = "which tokens are targets", .allowed = words_of<TrainOn>(), .identity = true});
    v("max_length", max_length,
      {.help = "tokens of a row; longer dialogs are cut at the end, longer texts are split",
       .least = 2,
       .most = 1048576,
       .identity = true});
    v("packing", packing, {.help = "fill rows with several documents", .identity = true});
    v("shuffle", shuffle, {.help = "another order of rows in every epoch", .identity = true});
    v("bad_rows", bad_rows, {.help = "what to do with a row that cannot be read", .allowed = words_of<BadRows>()});
  }
};

struct TrainSection {
  Precision dtype = Precision::bf16;
  MatmulNumbers matmul = MatmulNumbers::bf16;
  int64_t micro_batch_size = 1, global_batch_size = 16, seed = 42;
  std::optional<double> epochs;
  std::optional<int64_t> max_steps;
  bool deterministic = false;
  bool operator==(const TrainSection&) const = default;
  template <typename V>
  void fields(V& v) {
    v("dtype", dtype,
      {.help = "numbers of weights and activations; sums are fp32",
       .allowed = words_of<Precision>(),
       .identity = true});
    v("matmul", matmul,
      {.help =
           "what multiplies in training where frozen linears are held in fp8 (model.weights): bf16: weights widened "
           "to train.dtype; fp8: their codes, by inputs and gradients that are quantised to fp8. The rest is "
           "multiplied in train.dtype",
       .allowed = words_of<MatmulNumbers>(),
       .instead = {{"float8", "fp8"},
                   {"e4m3", "fp8"},
                   {"tensorwise", "fp8, which is scaled as the weights are"},
                   {"rowwise", "fp8, which is scaled as the weights are"}},
       .identity = true});
    v("micro_batch_size", micro_batch_size,
      {.help = "rows that go through the model at once", .least = 1, .most = 1 << 20});
    v("global_batch_size", global_batch_size,
      {.help = "rows of one optimizer step", .least = 1, .most = 1 << 24, .identity = true});
    v("epochs", epochs,
      {.help = "passes over the data (1 where max_steps is not given either)", .least = 1e-6, .most = 1e6});
    v("max_steps", max_steps, {.help = "optimizer steps, instead of epochs", .least = 1, .most = 1e9});
    v("seed", seed,
      {.help = "of the adapters' first values, the order of rows and dropout",
       .least = 0,
       .most = 9e15,
       .identity = true});
    v("deterministic", deterministic,
      {.help = "the same bits for the same micro-batches on any dp, pp and accumulation", .identity = true});
  }
};

struct OptimSection {
  double learning_rate = 2e-4, lora_plus_ratio = 1, eps = 1e-8, weight_decay = 0, max_grad_norm = 1, min_lr_ratio = 0;
  LearningRateShape schedule = LearningRateShape::cosine;
  std::optional<double> warmup_ratio;
  std::optional<int64_t> warmup_steps;
  std::vector<double> betas = {0.9, 0.999};
  bool operator==(const OptimSection&) const = default;
  template <typename V>
  void fields(V& v) {
    v("learning_rate", learning_rate, {.help = "AdamW's highest rate", .least = 0, .most = 10, .identity = true});
    v("lora_plus_ratio", lora_plus_ratio,
      {.help = "LoRA+: the learning rate of B is this times that of A", .least = 1, .most = 1e4, .identity = true});
    v("schedule", schedule,
      {.help = "of the learning rate after warm-up", .allowed = words_of<LearningRateShape>(), .identity = true});
    v("min_lr_ratio", min_lr_ratio,
      {.help = "the schedule ends at this share of learning_rate instead of 0",
       .least = 0,
       .most = 1,
       .identity = true});
    v("warmup_ratio", warmup_ratio,
      {.help = "share of the steps that warm up (0.03 where warmup_steps is not given either)",
       .least = 0,
       .most = 1,
       .identity = true});
    v("warmup_steps", warmup_steps,
      {.help = "steps that warm up, instead of a share", .least = 0, .most = 1e9, .identity = true});
    v("betas", betas, {.help = "AdamW's two decay rates", .least = 0, .most = 0.999999, .identity = true});
    v("eps", eps, {.help = "AdamW's epsilon", .least = 1e-15, .most = 1, .identity = true});
    v("weight_decay", weight_decay, {.help = "AdamW's decoupled decay", .least = 0, .most = 10, .identity = true});
    v("max_grad_norm", max_grad_norm,
      {.help = "gradients are scaled down to this norm; 0: never", .least = 0, .most = 1e9, .identity = true});
  }
};

struct ParallelSection {
  int64_t tp = 1, pp = 1;
  std::optional<int64_t> dp;
  Transport transport = Transport::automatic;
  bool operator==(const ParallelSection&) const = default;
  template <typename V>
  void fields(V& v) {
    v("tp", tp, {.help = "tensor parallelism: ranks that share every layer", .least = 1, .most = 1024});
    v("pp", pp, {.help = "pipeline stages", .least = 1, .most = 1024});
    v("dp", dp, {.help = "replicas; the rest of the ranks where it is not given", .least = 1, .most = 65536});
    v("transport", transport,
      {.help = "between GPUs. nccl; staged: through host memory and MPI; auto: nccl where every rank has a GPU of "
               "its own",
       .allowed = words_of<Transport>()});
  }
};

struct MemorySection {
  ActivationCheckpointing activation_checkpointing = ActivationCheckpointing::none;
  WeightHome weights = WeightHome::resident;
  bool operator==(const MemorySection&) const = default;
  template <typename V>
  void fields(V& v) {
    v("activation_checkpointing", activation_checkpointing,
      {.help = "full: keep only every layer's input and compute the rest again",
       .allowed = words_of<ActivationCheckpointing>()});
    v("weights", weights,
      {.help = "where the frozen linears of the layers are. host: in the host's memory, or on a CPU in the model's "
               "files; they pass through room for two or three layers, with the same results. Several micro-batches "
               "share a passage with activation_checkpointing: full and parallel.pp 1; else each has its own",
       .allowed = words_of<WeightHome>()});
  }
};

struct EvalSection {
  int64_t every_steps = 0, stop_after = 0;
  std::optional<std::string> prompts;
  bool operator==(const EvalSection&) const = default;
  template <typename V>
  void fields(V& v) {
    v("every_steps", every_steps,
      {.help = "validation loss every so many steps; 0: at the end", .least = 0, .most = 1e9});
    v("stop_after", stop_after,
      {.help = "the run ends after so many validations in a row without a lower loss; 0: never",
       .least = 0,
       .most = 1e9});
    v("prompts", prompts,
      {.help = "a file of {\"prompt\"} rows that are answered before and after training", .path = true});
  }
};

struct CheckpointSection {
  int64_t every_steps = 0, keep = 2;
  bool keep_best = false;
  std::string resume = "auto";
  bool operator==(const CheckpointSection&) const = default;
  template <typename V>
  void fields(V& v) {
    v("every_steps", every_steps, {.help = "save every so many steps; 0: at the end", .least = 0, .most = 1e9});
    v("keep", keep, {.help = "checkpoints that stay", .least = 1, .most = 1e6});
    v("keep_best", keep_best,
      {.help = "the checkpoint of the lowest validation loss stays too, and the adapter is made from it"});
    v("resume", resume,
      {.help = "auto: from output.dir where it holds a checkpoint of the same run; never; or a checkpoint's directory",
       .allowed = {"auto", "never"},
       .path = true});
  }
};

struct LogSection {
  int64_t every_steps = 1;
  bool profile = false, tensorboard = false;
  TracedSteps trace;
  bool operator==(const LogSection&) const = default;
  template <typename V>
  void fields(V& v) {
    v("every_steps", every_steps, {.help = "a progress line every so many steps", .least = 1, .most = 1e9});
    v("profile", profile, {.help = "print how long each part of a step took"});
    v("tensorboard", tensorboard, {.help = "write what metrics.jsonl has as event files to output.dir/tensorboard"});
    v("trace", trace,
      {.help = "steps whose actions and ops are written as Chrome traces to output.dir/trace: A..B or a list of steps",
       .least = 1,
       .most = 1e9});
  }
};

struct OutputSection {
  std::string dir;
  Precision adapter_dtype = Precision::fp32;
  bool operator==(const OutputSection&) const = default;
  template <typename V>
  void fields(V& v) {
    v("dir", dir, {.help = "where the run writes everything", .required = true, .path = true});
    v("adapter_dtype", adapter_dtype,
      {.help = "of the exported adapter", .allowed = words_of({Precision::fp32, Precision::bf16})});
  }
};

struct Recipe {
  DeviceChoice device = DeviceChoice::automatic;
  Method method = Method::lora;
  ModelSection model;
  LoraSection lora;
  DataSection data;
  TrainSection train;
  OptimSection optim;
  ParallelSection parallel;
  MemorySection memory;
  EvalSection eval;
  CheckpointSection checkpoint;
  LogSection log;
  OutputSection output;

  bool operator==(const Recipe&) const = default;

  // The visitor's `section(name)` comes before the fields of each section; "" for the two keys that stand alone.
  template <typename V>
  void fields(V& v) {
    v.section("model"), model.fields(v);
    v.section("");
    v("device", device, {.help = "auto: cuda where a usable GPU is found", .allowed = words_of<DeviceChoice>()});
    v("method", method,
      {.help = "what trains",
       .allowed = words_of<Method>(),
       .later = {"full", "dora"},
       .instead = {{"qlora", "method: lora with model.weights: nf4"}},
       .identity = true});
    v.section("lora"), lora.fields(v);
    v.section("data"), data.fields(v);
    v.section("train"), train.fields(v);
    v.section("optim"), optim.fields(v);
    v.section("parallel"), parallel.fields(v);
    v.section("memory"), memory.fields(v);
    v.section("eval"), eval.fields(v);
    v.section("checkpoint"), checkpoint.fields(v);
    v.section("log"), log.fields(v);
    v.section("output"), output.fields(v);
  }
};

}  // namespace drover
