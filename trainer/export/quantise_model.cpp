#include "trainer/export/quantise_model.h"

#include <algorithm>
#include <map>
#include <memory>

#include "kernels/base/error.h"
#include "kernels/base/hash.h"
#include "kernels/base/json.h"
#include "kernels/base/log.h"
#include "kernels/base/nf4.h"
#include "model/base_weights.h"
#include "model/dense_pieces.h"
#include "model/files/merged_writer.h"
#include "model/files/staged_directory.h"
#include "model/files/stored_formats.h"
#include "model/weight_table.h"
#include "trainer/export/disk_room.h"
#include "trainer/export/merged_rows.h"
#include "trainer/export/quantised_linear.h"
#include "trainer/export/text_files.h"
#include "trainer/setup/model_check.h"

namespace drover {

namespace {

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
      "on "
      "GPUs alone (on a CPU it reads whole blocks of {} × {})",
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

struct Piece {
  size_t bytes = 0;
  uint64_t hash = 0;
};

// The weights of the new directory, tensor by tensor in the writer's order.
class Quantisation {
 public:
  Quantisation(BaseWeights& base, QuantiseTo to) : base_(base), table_(weight_table(base.config())) {
    for (const ParamSpec& spec : table_) {
      if (!is_linear(spec)) {
        plain_[spec.name] = &spec;
        tensors_.push_back({spec.name, base.plain_dtype(spec.name), base.shape(spec.name)});
        continue;
      }
      const auto& linear = linears_.emplace_back(
          &spec, to == QuantiseTo::fp8 ? fp8_linear(base, spec) : nf4_linear(base, spec, base.plain_dtype(spec.name)));
      for (const TensorSpec& tensor : linear.made->tensors()) {
        tensors_.push_back(tensor);
        linear_of_[tensor.name] = linear.made.get();
      }
    }
  }

  const std::vector<TensorSpec>& tensors() const { return tensors_; }

  void write(MergedWriter& writer) {
    for (const TensorSpec& tensor : writer.order()) {
      const auto put = [&](const void* data, int64_t bytes) {
        writer.write(tensor.name, data, bytes);
        written_[tensor.name].push_back({static_cast<size_t>(bytes), xxh3(data, static_cast<size_t>(bytes))});
      };
      const auto linear = linear_of_.find(tensor.name);
      if (linear == linear_of_.end()) {
        copy(*plain_.at(tensor.name), tensor.dtype, put);
      } else {
        linear->second->write(tensor.name, put);
      }
    }
  }

  void check_read_back(const fs::path& directory, const std::vector<std::string>& files) const {
    for (const std::string& name : files) {
      const SafetensorsFile file(directory / name);
      for (const StoredTensor& tensor : file.tensors()) {
        size_t at = 0;
        std::vector<std::byte> bytes;
        for (const Piece& piece : written_.at(tensor.name)) {
          bytes.resize(piece.bytes);
          file.read(tensor, at, piece.bytes, bytes.data());
          if (xxh3(bytes.data(), piece.bytes) != piece.hash)
            fail(Fault::corruption, "read back, {} is not what was written; nothing was written", tensor.name);
          at += piece.bytes;
        }
      }
    }
  }

  std::vector<KindError> errors() const {
    std::vector<KindError> errors;
    for (const Linear& linear : linears_) {
      const std::string module = linear.spec->name.substr(0, linear.spec->name.rfind('.'));
      const std::string kind = module.substr(module.rfind('.') + 1);
      auto found = std::ranges::find(errors, kind, &KindError::kind);
      if (found == errors.end()) found = errors.insert(errors.end(), {.kind = kind, .largest = -1});
      const double error = linear.made->error();
      found->mean += error / static_cast<double>(base_.config().layers);
      if (error > found->largest) found->largest = error, found->layer = linear.spec->layer;
    }
    return errors;
  }
  int64_t linears() const { return static_cast<int64_t>(linears_.size()); }

 private:
  struct Linear {
    const ParamSpec* spec;
    std::unique_ptr<QuantisedLinear> made;
  };

  // Of weights that a reader converts without rounding.
  void copy(const ParamSpec& spec, StoredType type, const QuantisedLinear::Put& put) {
    in_pieces({0, spec.rows}, spec.cols, 1, [&](int64_t row, int64_t rows) {
      std::vector<float> values = floats(base_, spec, {row, rows}, {0, spec.cols});
      const std::vector<std::byte> bytes = rounded(type, values);
      put(bytes.data(), static_cast<int64_t>(bytes.size()));
    });
  }

  BaseWeights& base_;
  std::vector<ParamSpec> table_;
  std::map<std::string, const ParamSpec*> plain_;
  std::vector<Linear> linears_;
  std::map<std::string, QuantisedLinear*> linear_of_;
  std::vector<TensorSpec> tensors_;
  std::map<std::string, std::vector<Piece>> written_;
};

}  // namespace

QuantiseReport quantise_model(ModelDirectory& model, QuantiseTo to, const fs::path& out, int64_t max_shard_bytes) {
  check_weights(model);
  BaseWeights base(model);
  const std::vector<ParamSpec> table = weight_table(model.config());
  if (to == QuantiseTo::nf4) check_columns(table);
  check_format(model, to);
  StagedDirectory staged(out);
  Quantisation quantisation(base, to);
  int64_t bytes = 0;
  for (const TensorSpec& tensor : quantisation.tensors()) bytes += tensor.bytes();
  check_room(out, bytes);

  if (to == QuantiseTo::fp8) warn_of_short_blocks(table);
  log::info("quantising {} linears of {} to {}", quantisation.linears(), model.path().string(), name_of(to));
  MergedWriter writer(staged.path(), quantisation.tensors(), max_shard_bytes);
  quantisation.write(writer);
  writer.commit();
  write_text(staged.path() / "config.json", config_text(model, to));
  copy_text_files(model.path(), staged.path());

  ModelDirectory back(staged.path());
  check_weights(back);
  quantisation.check_read_back(staged.path(), writer.files());
  QuantiseReport report{quantisation.linears(), bytes_of_files(model), bytes_of_files(back), quantisation.errors()};
  staged.commit();
  return report;
}

}  // namespace drover
