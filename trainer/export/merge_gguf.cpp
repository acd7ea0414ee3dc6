#include "trainer/export/merge_gguf.h"

#include <algorithm>

#include "kernels/base/error.h"
#include "kernels/base/hash.h"
#include "kernels/base/json.h"
#include "kernels/base/log.h"
#include "model/files/gguf_config.h"
#include "model/files/gguf_tensors.h"
#include "model/files/gguf_types.h"
#include "model/files/gguf_writer.h"
#include "model/files/input_file.h"
#include "model/files/staged_directory.h"
#include "model/weight_table.h"
#include "trainer/export/disk_room.h"
#include "trainer/export/gguf_vocabulary.h"
#include "trainer/export/merged_rows.h"
#include "trainer/setup/model_check.h"

namespace drover {

namespace {

constexpr int64_t kRowsAtOnce = 1024;
constexpr size_t kLargestSettings = size_t{1} << 20;
constexpr int kQuantisationVersion = 2;  // of ggml's blocks

struct Written {
  std::string name;  // of the base's tensor; none for what only the GGUF file has
  GgufPlace place;
  GgufType type = GgufType::f32;
  std::vector<uint64_t> hashes;  // of its bytes, a piece after the other
  std::vector<size_t> pieces;    // bytes
};

// As llama.cpp's converter has it.
GgufType type_of(const GgufPlace& place, GgufType wanted) {
  if (place.cols == 1) return GgufType::f32;
  return place.cols % gguf_block(wanted).weights == 0 ? wanted : GgufType::f16;
}

std::vector<Written> tensors_of(const ModelConfig& config, GgufType type) {
  std::vector<Written> tensors;
  if (config.rope_scaling) tensors.push_back({"", {kGgufRopeFactors, config.head_dim / 2}});
  const auto places = gguf_places(config);
  size_t fallen_back = 0;
  for (const ParamSpec& spec : weight_table(config)) {
    const GgufPlace& place = places.at(spec.name);
    tensors.push_back({spec.name, place, type_of(place, type)});
    if (place.cols > 1 && tensors.back().type != type) ++fallen_back;
  }
  if (fallen_back > 0) {
    log::info("{} tensors are written as f16: their rows are no multiple of the 32 weights of a {} block", fallen_back,
              gguf_outtype_name(type));
  }
  return tensors;
}

// How generation_config.json would have tokens drawn, which llama.cpp takes for its defaults.
void write_sampling(GgufWriter& writer, const fs::path& base) {
  const fs::path file = base / "generation_config.json";
  if (!fs::exists(file)) return;
  const Json settings = parse_json(read_text(file, kLargestSettings), file.string());
  for (const auto& [theirs, ours] : {std::pair{"temperature", "temp"},
                                     {"top_p", "top_p"},
                                     {"min_p", "min_p"},
                                     {"repetition_penalty", "penalty_repeat"}}) {
    const Json value = settings.value(theirs, Json());
    if (value.is_number()) writer.number(std::string("general.sampling.") + ours, value.get<float>());
  }
  const Json top_k = settings.value("top_k", Json());
  if (top_k.is_number_unsigned()) writer.integer("general.sampling.top_k", top_k.get<int64_t>());
}

// Rows as the file has them. `values` are whole heads.
std::vector<float> interleaved(const std::vector<float>& values, int64_t cols, int64_t head_dim) {
  std::vector<float> out(values.size());
  for (int64_t row = 0; row * cols < static_cast<int64_t>(values.size()); ++row)
    std::copy_n(values.begin() + row_from_gguf(row, head_dim) * cols, cols, out.begin() + row * cols);
  return out;
}

void write(GgufWriter& writer, Written& tensor, const std::vector<float>& values) {
  const std::vector<std::byte> bytes = encode_gguf(tensor.type, values, tensor.name);
  writer.write(tensor.place.name, bytes.data(), static_cast<int64_t>(bytes.size()));
  tensor.hashes.push_back(xxh3(bytes.data(), bytes.size()));
  tensor.pieces.push_back(bytes.size());
}

// Piece by piece: a file that is larger than this process's memory, or addresses, is not mapped.
void check_read_back(const fs::path& file, const GgufWriter& writer, const std::vector<Written>& tensors) {
  const InputFile back(file);
  const auto check = [](bool same, const std::string& what) {
    if (!same) fail(Fault::corruption, "read back, {} is not what was written; nothing was written", what);
  };
  const std::string header = writer.header();
  check(back.bytes() == static_cast<size_t>(writer.bytes()), "the file's length");
  std::string bytes(header.size(), '\0');
  back.read(0, bytes.size(), bytes.data());
  check(bytes == header, "the file's header");
  auto begin = static_cast<int64_t>(header.size());
  for (const Written& tensor : tensors) {
    int64_t at = begin;
    for (size_t i = 0; i < tensor.pieces.size(); ++i) {
      bytes.resize(tensor.pieces[i]);
      back.read(static_cast<size_t>(at), bytes.size(), bytes.data());
      check(xxh3(bytes.data(), bytes.size()) == tensor.hashes[i], tensor.place.name);
      at += static_cast<int64_t>(bytes.size());
    }
    begin += GgufWriter::aligned(at - begin);
  }
}

void check_is_new(const fs::path& file) {
  std::error_code ignored;
  if (!fs::exists(fs::symlink_status(file, ignored))) return;
  fail(Fault::usage, "{} exists already, and a merged model replaces nothing; name a new file, or remove this one",
       file.string());
}

}  // namespace

void merge_to_gguf(const AdapterSource& adapter, BaseWeights& base, const fs::path& file, GgufType type,
                   Backend& backend, const ModelTexts& texts, WeightsAs trained_over) {
  check_is_new(file);
  check_weights(base.directory());
  const ModelConfig config = merged_model(adapter.config, base);
  const StagedDirectory staged(file);  // its name is taken at the end, by the file alone
  const fs::path inside = staged.path() / "model.gguf";
  GgufWriter writer(inside);
  writer.text("general.type", "model");
  writer.text("general.name", file.stem().string());
  writer.integer("general.file_type", gguf_file_type(type));
  writer.integer("general.quantization_version", kQuantisationVersion);
  write_sampling(writer, base.directory().path());
  write_gguf_config(writer, config);
  write_gguf_vocabulary(writer, texts, config);
  std::vector<Written> tensors = tensors_of(config, type);
  for (const Written& tensor : tensors) writer.tensor(tensor.place.name, tensor.type, tensor.place.shape());
  check_room(file, writer.bytes());

  MergedRows merged(adapter, base, backend, trained_over);
  const int64_t whole_heads = std::max<int64_t>(1, kRowsAtOnce / config.head_dim) * config.head_dim;
  for (Written& tensor : tensors) {
    if (tensor.name.empty()) {
      write(writer, tensor, rope_divisors(config));
      continue;
    }
    merged.each(tensor.name, StoredType::f32, whole_heads, [&](int64_t, std::vector<float>& values) {
      const GgufPlace& place = tensor.place;
      write(writer, tensor, place.interleaved ? interleaved(values, place.cols, config.head_dim) : values);
    });
  }
  writer.commit();
  check_read_back(inside, writer, tensors);
  check_is_new(file);
  rename_durably(inside, file);
}

}  // namespace drover
