#include "model/files/model_directory.h"

#include <algorithm>
#include <array>
#include <cstring>
#include <set>

#include "kernels/base/hash.h"
#include "kernels/base/hub_cache.h"
#include "kernels/base/json.h"
#include "kernels/base/nf4.h"

namespace drover {

namespace {

constexpr const char* kSingle = "model.safetensors";
constexpr const char* kIndex = "model.safetensors.index.json";
constexpr const char *kHead = "lm_head.weight", *kEmbedding = "model.embed_tokens.weight";
constexpr size_t kNamesShown = 20;
constexpr int64_t kReadBytes = int64_t{16} << 20;  // how much is read at once

std::string listed(const std::vector<std::string>& lines) {
  std::string text;
  for (size_t i = 0; i < lines.size() && i < kNamesShown; ++i) text += "\n  " + lines[i];
  if (lines.size() > kNamesShown) text += fmt::format("\n  and {} more", lines.size() - kNamesShown);
  return text;
}

bool equal_bytes(const SafetensorsFile& file, const StoredTensor& tensor, const SafetensorsFile& other_file,
                 const StoredTensor& other) {
  size_t at = 0;
  bool equal = true;
  std::vector<std::byte> bytes;
  file.read_in_pieces(tensor, [&](std::span<const std::byte> piece) {
    bytes.resize(piece.size());
    other_file.read(other, at, piece.size(), bytes.data());
    equal = equal && std::ranges::equal(piece, bytes);
    at += piece.size();
  });
  return equal;
}

// Why there is no model here, from what is there instead.
[[noreturn]] void fail_without_weights(const fs::path& directory) {
  std::error_code ignored;
  for (const auto& entry : fs::directory_iterator(directory, ignored)) {
    const std::string name = entry.path().filename().string(), extension = entry.path().extension().string();
    if (extension == ".bin" || extension == ".pth" || extension == ".pt") {
      fail(Fault::bad_data,
           "{} holds {} but no {}: pickles can run code and are not read; fetch the model's safetensors, or convert it "
           "with transformers' "
           "save_pretrained",
           directory.string(), name, kSingle);
    }
    if (extension == ".gguf") {
      fail(Fault::bad_data, "{} holds {} but no {}; make a Hugging Face directory of it: drover import {} DIR",
           directory.string(), name, kSingle, entry.path().string());
    }
    if (extension == ".safetensors") {
      fail(Fault::missing_input, "{} holds {} but neither {} nor {}; fetch the index too", directory.string(), name,
           kSingle, kIndex);
    }
  }
  fail(Fault::missing_input, "no weights in {}: neither {} nor {}", directory.string(), kSingle, kIndex);
}

}  // namespace

void fail_no_model(const fs::path& path) {
  const std::string name = path.string();
  if (!is_hub_name(name)) fail(Fault::missing_input, "no model directory {}{}", name, from_here(path));
  fail(Fault::missing_input,
       "no model directory {0}, and none of that name in the local hub cache {1}; nothing is fetched from a hub: "
       "download it, hf download {0}, or with --local-dir {2} and give {2}",
       name, hub_cache().string(), name.substr(name.find('/') + 1));
}

ModelDirectory::ModelDirectory(const fs::path& path) : path_(path) {
  std::error_code ignored;
  if (!fs::is_directory(path, ignored)) fail_no_model(path);
  config_ = read_model_config(path);
  quantisation_ = read_quantisation(path);
  find_weights();
}

void ModelDirectory::find_weights() {
  std::error_code ignored;
  if (fs::exists(path_ / kSingle, ignored)) {
    auto single = std::make_unique<SafetensorsFile>(path_ / kSingle);
    for (const StoredTensor& tensor : single->tensors()) file_of_.emplace(tensor.name, kSingle);
    open_.emplace(kSingle, std::move(single));
  } else if (fs::exists(path_ / kIndex, ignored)) {
    read_index(path_ / kIndex);
  } else {
    fail_without_weights(path_);
  }
}

void ModelDirectory::read_index(const fs::path& index) {
  const std::string where = index.string();
  const Json json = parse_json(read_text(index, kHeaderLimit), where);
  const auto map = json.is_object() ? json.find("weight_map") : json.end();
  if (!json.is_object() || map == json.end() || !map->is_object()) {
    fail(Fault::bad_data, "{}: no weight_map of tensors to files", where);
  }
  if (map->size() > kTensorLimit) fail(Fault::bad_data, "{}: more than {} tensors", where, kTensorLimit);
  for (const auto& [tensor, value] : map->items()) {
    if (!value.is_string()) fail(Fault::bad_data, "{}: the file of {} is not a name", where, clipped(tensor));
    const auto& name = value.get_ref<const std::string&>();
    if (name.find('/') != std::string::npos || name.find('\\') != std::string::npos ||
        name.find('\0') != std::string::npos || name[0] == '.') {
      fail(Fault::bad_data, "{}: the file of {} is \"{}\"; allowed are names of files next to the index", where,
           clipped(tensor), clipped(name));
    }
    if (!name.ends_with(".safetensors")) {
      fail(Fault::bad_data, "{}: the file of {} is \"{}\"; only .safetensors files are read", where, clipped(tensor),
           clipped(name));
    }
    file_of_.emplace(tensor, name);
  }
  std::vector<std::string> missing;
  for (const std::string& name : files()) {
    std::error_code ignored;
    if (!fs::exists(path_ / name, ignored)) missing.push_back(name);
  }
  if (!missing.empty()) {
    fail(Fault::missing_input, "{}: the index names files that are not there; fetch them again:{}", path_.string(),
         listed(missing));
  }
}

std::vector<std::string> ModelDirectory::names() const {
  std::vector<std::string> names;
  for (const auto& [name, file] : file_of_) names.push_back(name);
  return names;
}

std::vector<std::string> ModelDirectory::files() const {
  std::set<std::string> files;
  for (const auto& [name, file] : file_of_) files.insert(file);
  return {files.begin(), files.end()};
}

const SafetensorsFile& ModelDirectory::file(const std::string& name) {
  if (const auto& opened = open_[name]; opened != nullptr) return *opened;
  open_[name] = std::make_unique<SafetensorsFile>(path_ / name);
  try {
    check_doubles(name);
  } catch (const Error&) {
    open_.erase(name);
    throw;
  }
  return *open_[name];
}

// A tensor may stand in a second file too, where the two are equal.
void ModelDirectory::check_doubles(const std::string& name) {
  for (const StoredTensor& tensor : open_.at(name)->tensors()) {
    const auto indexed = file_of_.find(tensor.name);
    if (indexed == file_of_.end() || indexed->second == name) continue;
    const StoredTensor* other = file(indexed->second).find(tensor.name);
    if (other != nullptr && other->dtype == tensor.dtype && other->shape == tensor.shape &&
        equal_bytes(*open_.at(name), tensor, file(indexed->second), *other))
      continue;
    fail(Fault::bad_data, "{}: the tensor {} stands in two files, {} and {}, and they differ; fetch the model again",
         path_.string(), clipped(tensor.name), indexed->second, name);
  }
}

const StoredTensor& ModelDirectory::tensor(const std::string& name) {
  const auto found = file_of_.find(name);
  if (found == file_of_.end()) fail(Fault::bad_data, "{}: the model has no tensor {}", path_.string(), name);
  const StoredTensor* tensor = file(found->second).find(name);
  if (tensor == nullptr) {
    fail(Fault::bad_data, "{}: the index says that {} is in {}, but it is not; fetch the model again", path_.string(),
         name, found->second);
  }
  return *tensor;
}

const QuantisedTensor* ModelDirectory::quantised(const std::string& name) {
  if (!quantisation_) return nullptr;
  auto known = quantised_.find(name);
  if (known == quantised_.end()) {
    const auto find = [this](const std::string& wanted) -> std::optional<PlacedTensor> {
      if (!has(wanted)) return std::nullopt;
      return PlacedTensor{&tensor(wanted), &file(file_of_.at(wanted))};
    };
    auto opened = QuantisedTensor::open(name, *quantisation_, find);
    if (opened && !opened->levels().empty()) {
      if (absmax_levels_.empty()) absmax_levels_ = opened->levels();
      if (absmax_levels_ != opened->levels())
        fail(Fault::bad_data, "{}: {}.nested_quant_map differs from that of another weight; they must be equal",
             path_.string(), name);
    }
    known = quantised_.emplace(name, std::move(opened)).first;
  }
  return known->second ? &*known->second : nullptr;
}

StoredType ModelDirectory::dtype(const std::string& name) { return tensor(name).dtype; }

std::vector<int64_t> ModelDirectory::shape(const std::string& name) {
  if (const QuantisedTensor* weight = quantised(name)) return {weight->rows(), weight->cols()};
  return tensor(name).shape;
}

std::optional<StoredScaling> ModelDirectory::scaling(const std::string& name) {
  const QuantisedTensor* weight = quantised(name);
  return weight == nullptr ? std::nullopt : std::optional(weight->scaling());
}

StoredType ModelDirectory::plain_dtype(const std::string& name) {
  const auto scaled = scaling(name);
  if (!scaled) return dtype(name);
  switch (scaled->rounding) {
    case Rounding::bf16: return StoredType::bf16;
    case Rounding::f16: return StoredType::f16;
    case Rounding::none: break;
  }
  if (config_.storage_dtype == "bfloat16") return StoredType::bf16;
  return config_.storage_dtype == "float16" ? StoredType::f16 : StoredType::f32;
}

std::vector<std::string> ModelDirectory::check_names(std::span<const ExpectedTensor> whole_model) const {
  std::set<std::string> expected;
  std::vector<std::string> missing, surplus;
  for (const ExpectedTensor& tensor : whole_model) {
    expected.insert(tensor.name);
    if (!has(tensor.name)) missing.push_back(tensor.name);
  }
  if (!missing.empty()) {
    fail(Fault::bad_data, "{}: {} of the {} tensors that config.json asks for are missing:{}", path_.string(),
         missing.size(), whole_model.size(), listed(missing));
  }
  for (const auto& [name, file] : file_of_) {
    const bool tied = config_.tied_head && name == kHead;  // check_shapes compares it
    const bool known = tied || name.ends_with("rotary_emb.inv_freq") || (quantisation_ && is_quantisation_data(name));
    if (expected.count(name) == 0 && !known) surplus.push_back(name);
  }
  return surplus;
}

void ModelDirectory::check_shapes(std::span<const ExpectedTensor> mine) {
  std::vector<std::string> wrong;
  for (const ExpectedTensor& expected : mine) {
    const std::vector<int64_t> stored = this->shape(expected.name);
    const bool key_or_value = expected.name.ends_with(".k_proj.weight") || expected.name.ends_with(".v_proj.weight");
    const std::vector<int64_t> shape =
        expected.cols == 1 ? std::vector<int64_t>{expected.rows} : std::vector<int64_t>{expected.rows, expected.cols};
    const bool fits = stored == shape || (expected.cols == 1 && stored == std::vector<int64_t>{expected.rows, 1});
    if (quantised(expected.name) == nullptr && !can_convert(dtype(expected.name))) {
      wrong.push_back(wrong_type(expected.name));
    } else if (!fits && key_or_value && stored.size() == 2 && stored[1] == expected.cols && stored[0] > expected.rows &&
               stored[0] % expected.rows == 0) {
      wrong.push_back(
          fmt::format("{} has {} rows where num_key_value_heads {} × head_dim {} needs {}: the checkpoint carries "
                      "duplicated KV heads, "
                      "as the first upload of Llama 3.1 405B did; fetch the later one",
                      expected.name, stored[0], config_.kv_heads, config_.head_dim, expected.rows));
    } else if (!fits) {
      wrong.push_back(
          fmt::format("{} is {}, config.json needs {}", expected.name, shape_text(stored), shape_text(shape)));
    }
  }
  if (!wrong.empty()) fail(Fault::bad_data, "{}: the weights do not fit config.json:{}", path_.string(), listed(wrong));
  const auto is_embedding = [](const ExpectedTensor& expected) { return expected.name == kEmbedding; };
  if (config_.tied_head && has(kHead) && std::ranges::any_of(mine, is_embedding)) check_tied_head();
}

std::string ModelDirectory::wrong_type(const std::string& name) {
  return fmt::format("{} is stored as {}; allowed are BF16, F16 and F32{}", name, name_of(dtype(name)),
                     quantisation_ ? "" : ", and codes where config.json's quantization_config says what they mean");
}

void ModelDirectory::check_tied_head() {
  const StoredTensor &head = tensor(kHead), &embedding = tensor(kEmbedding);
  const bool same = head.dtype == embedding.dtype && head.bytes == embedding.bytes &&
                    equal_bytes(file(file_of_.at(kHead)), head, file(file_of_.at(kEmbedding)), embedding);
  if (same) return;
  fail(Fault::bad_data,
       "{}: config.json says tie_word_embeddings: true, and {} is stored with other values than {}; set "
       "tie_word_embeddings to false for the head that is stored, or take the tensor out",
       path_.string(), kHead, kEmbedding);
}

void ModelDirectory::read(const std::string& name, int64_t row_begin, int64_t rows, int64_t col_begin, int64_t cols,
                          DType to, void* out) {
  if (quantised(name) != nullptr) return read_quantised(name, row_begin, rows, col_begin, cols, to, out);
  const StoredTensor& stored = tensor(name);
  const SafetensorsFile& source = file(file_of_.at(name));
  if (!can_convert(stored.dtype)) fail(Fault::bad_data, "{}: {}", source.path().string(), wrong_type(name));
  const int64_t all_cols = stored.cols();
  require(row_begin >= 0 && rows >= 0 && row_begin + rows <= stored.rows() && col_begin >= 0 && cols >= 0 &&
              col_begin + cols <= all_cols,
          "a slice lies inside its tensor");
  if (rows == 0 || cols == 0) return;
  const int64_t number = size_of(stored.dtype);
  const RowBytes part{static_cast<size_t>(all_cols * number), static_cast<size_t>(col_begin * number),
                      static_cast<size_t>(cols * number)};
  bytes_read_ += rows * cols * number;
  if (stored.dtype == stored_type(to))
    return source.read_rows(stored, static_cast<size_t>(row_begin), static_cast<size_t>(rows), part, out);
  const int64_t at_once = std::max<int64_t>(1, kReadBytes / (cols * number));
  std::vector<std::byte> piece;
  for (int64_t row = 0; row < rows; row += at_once) {
    const int64_t count = std::min(at_once, rows - row);
    piece.resize(static_cast<size_t>(count) * part.count);
    source.read_rows(stored, static_cast<size_t>(row_begin + row), static_cast<size_t>(count), part, piece.data());
    convert(stored.dtype, piece.data(), count * cols, to, static_cast<char*>(out) + row * cols * size_of(to));
  }
}

Fp8Slice ModelDirectory::read_fp8(const std::string& name, int64_t row, int64_t rows, int64_t col, int64_t cols) {
  const QuantisedTensor* weight = quantised(name);
  require(weight != nullptr, "a slice of codes is read of a quantised weight");
  Fp8Slice slice = weight->read_fp8(row, rows, col, cols);
  bytes_read_ += weight->stored_bytes(slice);
  return slice;
}

Nf4Slice ModelDirectory::read_nf4(const std::string& name, int64_t row, int64_t rows, int64_t col, int64_t cols) {
  const QuantisedTensor* weight = quantised(name);
  require(weight != nullptr, "a slice of codes is read of a quantised weight");
  Nf4Slice slice = weight->read_nf4(row, rows, col, cols);
  bytes_read_ += weight->stored_bytes(slice);
  return slice;
}

void ModelDirectory::read_quantised(const std::string& name, int64_t row, int64_t rows, int64_t col, int64_t cols,
                                    DType to, void* out) {
  const bool nf4 = scaling(name)->kind == StoredScaling::Kind::nf4;
  // Of NF4 whole blocks are read, and what was asked for is taken out.
  const int64_t first = nf4 ? col / kNf4Block * kNf4Block : col,
                wide = nf4 ? (col + cols + kNf4Block - 1) / kNf4Block * kNf4Block - first : cols;
  const int64_t at_once = std::max<int64_t>(1, kReadBytes / std::max<int64_t>(1, wide * size_of(DType::f32)));
  std::vector<float> values;
  for (int64_t r = 0; r < rows; r += at_once) {
    const int64_t count = std::min(at_once, rows - r);
    values.resize(static_cast<size_t>(count * wide));
    if (nf4) {
      dequantise(read_nf4(name, row + r, count, first, wide), values.data());
    } else {
      dequantise(read_fp8(name, row + r, count, first, wide), values.data());
    }
    for (int64_t i = 0; i < count; ++i) {
      convert(StoredType::f32, reinterpret_cast<const std::byte*>(values.data() + i * wide + col - first), cols, to,
              static_cast<char*>(out) + (r + i) * cols * size_of(to));
    }
  }
}

namespace {
constexpr size_t kSampledBlocks = 16, kBlockBytes = 4096;  // of every tensor: up to 64 KiB are hashed whole
}

std::map<std::string, std::string> ModelDirectory::fingerprints(std::span<const std::string> tensors) {
  std::map<std::string, std::string> known;
  for (const std::string& name : tensors) {
    if (!has(name) || known.count(file_of_.at(name)) != 0) continue;
    const SafetensorsFile& weights = file(file_of_.at(name));
    Sha256 hash;
    const uint64_t size = weights.file_bytes();
    hash.update(&size, sizeof size);
    const std::string header = weights.header();
    hash.update(header.data(), header.size());
    weights.advise_scattered(true);
    std::array<std::byte, kBlockBytes> block;
    for (const StoredTensor& stored : weights.tensors()) {
      const size_t size = stored.bytes,
                   blocks = std::min<size_t>(kSampledBlocks, (size + kBlockBytes - 1) / kBlockBytes);
      for (size_t i = 0; i < blocks; ++i) {  // evenly from the first to the last block
        const size_t begin = blocks == 1 ? 0 : (size - std::min(size, kBlockBytes)) * i / (blocks - 1),
                     count = std::min(kBlockBytes, size - begin);
        weights.read(stored, begin, count, block.data());
        hash.update(block.data(), count);
      }
    }
    weights.advise_scattered(false);
    known[file_of_.at(name)] = hash.hex();
  }
  return known;
}

}  // namespace drover
