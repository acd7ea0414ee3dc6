#include "trainer/export/quantise_model.h"

#include <algorithm>
#include <cmath>
#include <map>

#include "kernels/base/error.h"
#include "kernels/base/json.h"
#include "kernels/base/log.h"
#include "kernels/base/nf4.h"
#include "model/base_weights.h"
#include "model/dense_pieces.h"
#include "model/files/stored_formats.h"
#include "model/weight_table.h"
#include "trainer/export/dealt_model.h"
#include "trainer/export/merged_rows.h"
#include "trainer/export/text_files.h"
#include "trainer/setup/model_check.h"

namespace drover {

namespace {

constexpr int kLayout = 2;  // of what the journal and the files of an unfinished directory hold

const char* name_of(QuantiseTo to) { return to == QuantiseTo::fp8 ? "fp8" : "nf4"; }

bool is_linear(const ParamSpec& spec) { return spec.layer >= 0 && spec.cols > 1; }

std::string text_of(const std::map<std::string, int64_t>& linears) {
  std::string text;
  for (const auto& [format, count] : linears) text += fmt::format("{}{} {}", text.empty() ? "" : ", ", count, format);
  return text;
}

void check_format(ModelDirectory& model, QuantiseTo to) {
  if (!model.is_quantised()) return;
  const StoredFormats stored = stored_formats(model);
  if (stored.linears.count(name_of(to)) != 0) {
    fail(Fault::usage,
         "{} is in {} already ({}; its linears: {}) and is used as it is; for another layout of {}, quantise the model "
         "in 16 bits that it was made from",
         model.path().string(), name_of(to), stored.method, text_of(stored.linears), name_of(to));
  }
  log::info("{} is quantised already ({}; its linears: {}): {} is made of what its codes mean, so both errors add up",
            model.path().string(), stored.method, text_of(stored.linears), name_of(to));
}

void check_columns(const std::vector<ParamSpec>& table) {
  for (const ParamSpec& spec : table) {
    if (!is_linear(spec) || spec.cols % kNf4Block == 0) continue;
    fail(Fault::usage, "{} has {} columns, and NF4 needs whole blocks of {}; quantise this model --to fp8", spec.name,
         spec.cols, kNf4Block);
  }
}

void warn_of_short_blocks(const std::vector<ParamSpec>& table) {
  const auto [high, wide] = kMadeBlocks;
  const auto is_short = [&](const ParamSpec& s) { return is_linear(s) && (s.rows % high != 0 || s.cols % wide != 0); };
  const auto first = std::ranges::find_if(table, is_short);
  if (first == table.end()) return;
  log::warn(
      "{} of the linears, {} first ([{}, {}]), end in short blocks: drover computes with them anywhere, transformers "
      "on GPUs "
      "alone (on a CPU it reads whole blocks of {} × {})",
      std::ranges::count_if(table, is_short), first->name, first->rows, first->cols, high, wide);
}

// As transformers writes it.
OrderedJson quantisation_of(const ModelConfig& config, QuantiseTo to) {
  if (to == QuantiseTo::fp8) {
    return {{"activation_scheme", "dynamic"},
            {"fmt", "e4m3"},
            {"modules_to_not_convert", OrderedJson::array({kHeadModule})},
            {"quant_method", "fp8"},
            {"weight_block_size", OrderedJson::array({kMadeBlocks.rows, kMadeBlocks.columns})}};
  }
  return {{"_load_in_4bit", true},
          {"_load_in_8bit", false},
          {"bnb_4bit_compute_dtype", config.storage_dtype},
          {"bnb_4bit_quant_storage", "uint8"},
          {"bnb_4bit_quant_type", "nf4"},
          {"bnb_4bit_use_double_quant", true},
          {"llm_int8_enable_fp32_cpu_offload", false},
          {"llm_int8_has_fp16_weight", false},
          {"llm_int8_skip_modules", OrderedJson::array({kHeadModule})},
          {"llm_int8_threshold", 6.0},
          {"load_in_4bit", true},
          {"load_in_8bit", false},
          {"quant_method", "bitsandbytes"}};
}

std::string config_text(const ModelDirectory& model, QuantiseTo to) {
  const fs::path file = model.path() / "config.json";
  OrderedJson json = parse_ordered_json(read_text(file), file.string());
  for (const char* name : {"quantization_config", "compression_config"}) json.erase(name);
  json["quantization_config"] = quantisation_of(model.config(), to);
  return json.dump(2) + "\n";
}

int64_t bytes_of_files(const ModelDirectory& model) {
  int64_t bytes = 0;
  for (const std::string& file : model.files()) bytes += static_cast<int64_t>(fs::file_size(model.path() / file));
  return bytes;
}

// A weight that a reader converts without rounding.
class PlainPart : public WeightPart {
 public:
  PlainPart(BaseWeights& base, const ParamSpec& spec)
      : base_(base), spec_(spec), tensor_{spec.name, base.plain_dtype(spec.name), base.shape(spec.name)} {}

  std::vector<TensorSpec> tensors() const override { return {tensor_}; }
  void write(const std::string&, const Put& put) override {
    in_pieces({0, spec_.rows}, spec_.cols, 1, [&](int64_t row, int64_t rows) {
      std::vector<float> values = floats(base_, spec_, {row, rows}, {0, spec_.cols});
      const std::vector<std::byte> bytes = rounded(tensor_.dtype, values);
      put(bytes.data(), static_cast<int64_t>(bytes.size()));
    });
  }

 private:
  BaseWeights& base_;
  const ParamSpec& spec_;
  TensorSpec tensor_;
};

class QuantisedPart : public WeightPart {
 public:
  QuantisedPart(const ParamSpec& spec, std::unique_ptr<QuantisedLinear> linear)
      : spec_(spec), linear_(std::move(linear)) {}

  std::vector<TensorSpec> tensors() const override { return linear_->tensors(); }
  void write(const std::string& tensor, const Put& put) override {
    linear_->write(tensor, put);
    if (tensor != spec_.name) return;
    const RelativeDistance& error = linear_->error();
    update_ = {.name = spec_.name,
               .elements = spec_.rows * spec_.cols,
               .weight2 = error.size2(),
               .rounding2 = error.difference2()};
  }

 private:
  const ParamSpec& spec_;
  std::unique_ptr<QuantisedLinear> linear_;
};

WeightParts parts_of(const std::vector<ParamSpec>& table, BaseWeights& base, QuantiseTo to, int threads) {
  WeightParts parts;
  for (const ParamSpec& spec : table) {
    if (!is_linear(spec)) {
      parts.push_back(std::make_unique<PlainPart>(base, spec));
    } else if (to == QuantiseTo::fp8) {
      parts.push_back(std::make_unique<QuantisedPart>(spec, fp8_linear(base, spec, threads)));
    } else {
      parts.push_back(
          std::make_unique<QuantisedPart>(spec, nf4_linear(base, spec, base.plain_dtype(spec.name), threads)));
    }
  }
  return parts;
}

std::string identity_of(ModelDirectory& model, const QuantiseSettings& settings) {
  return Json{{"layout", kLayout},
              {"config.json", read_text(model.path() / "config.json")},
              {"model", model.fingerprints(model.names())},
              {"to", name_of(settings.to)},
              {"max_shard_bytes", settings.max_shard_bytes}}
      .dump();
}

// In the order of the table.
std::vector<KindError> errors_of(const std::vector<ParamSpec>& table, const ModelConfig& config,
                                 const DealtModel::Updates& updates) {
  std::vector<KindError> errors;
  for (const ParamSpec& spec : table) {
    if (!is_linear(spec)) continue;
    const std::string module = spec.name.substr(0, spec.name.rfind('.'));
    const std::string kind = module.substr(module.rfind('.') + 1);
    auto found = std::ranges::find(errors, kind, &KindError::kind);
    if (found == errors.end()) found = errors.insert(errors.end(), {.kind = kind, .largest = -1});
    const TensorUpdate& made = updates.at(spec.name);
    const double error = std::sqrt(made.rounding2 / std::max(made.weight2, 1e-30));
    found->mean += error / static_cast<double>(config.layers);
    if (error > found->largest) found->largest = error, found->layer = spec.layer;
  }
  return errors;
}

}  // namespace

QuantiseReport quantise_model(ModelDirectory& model, const fs::path& out, const QuantiseSettings& settings) {
  const QuantiseTo to = settings.to;
  const std::unique_ptr<Communicator> alone = make_self_communicator("world");
  BaseWeights base(model);
  const std::vector<ParamSpec> table = weight_table(model.config());
  QuantiseReport report{.linears = std::ranges::count_if(table, is_linear)};
  make_model({.out = out,
              .words = {"quantisation", "quantising", "quantised"},
              .max_shard_bytes = settings.max_shard_bytes,
              .parts =
                  [&] {
                    check_weights(model);
                    if (to == QuantiseTo::nf4) check_columns(table);
                    check_format(model, to);
                    if (to == QuantiseTo::fp8) warn_of_short_blocks(table);
                    log::info("quantising {} linears of {} to {}", report.linears, model.path().string(), name_of(to));
                    return parts_of(table, base, to, settings.threads);
                  },
              .identity = [&] { return identity_of(model, settings); },
              .finish =
                  [&](const fs::path& directory, const DealtModel::Updates& updates) {
                    write_text(directory / "config.json", config_text(model, to));
                    copy_text_files(model.path(), directory);
                    ModelDirectory back(directory);
                    check_weights(back);
                    report.bytes_before = bytes_of_files(model);
                    report.bytes_after = bytes_of_files(back);
                    report.errors = errors_of(table, model.config(), updates);
                  }},
             settings.world != nullptr ? *settings.world : *alone);
  return report;
}

}  // namespace drover
