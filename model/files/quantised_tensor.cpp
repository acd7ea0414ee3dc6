#include "model/files/quantised_tensor.h"

#include <algorithm>
#include <cmath>
#include <cstring>

#include "kernels/base/nf4.h"
#include "model/files/nf4_state.h"

namespace drover {

namespace {

constexpr size_t kStateBytes = 65'536;  // of NF4's JSON
constexpr float kLevelsApart = 1e-6f;   // at most, of a file's levels of absmax from ours
constexpr const char* kState = ".quant_state.bitsandbytes__nf4";

std::string place_of(const PlacedTensor& placed) {
  return fmt::format("{}: {}", placed.file->path().string(), placed.tensor->name);
}

// Bytes [begin, begin + count) of each of some rows.
struct Bytes {
  int64_t row_bytes = 0, begin = 0, count = 0;
};

void copy_rows(const PlacedTensor& from, int64_t row, int64_t rows, const Bytes& bytes, void* out) {
  const RowBytes part{static_cast<size_t>(bytes.row_bytes), static_cast<size_t>(bytes.begin),
                      static_cast<size_t>(bytes.count)};
  from.file->read_rows(*from.tensor, static_cast<size_t>(row), static_cast<size_t>(rows), part, out);
}

// Numbers [begin, begin + count) of a tensor of F32, BF16 or F16.
std::vector<float> numbers(const PlacedTensor& from, int64_t begin, int64_t count) {
  std::vector<float> values(static_cast<size_t>(count));
  const StoredType type = from.tensor->dtype;
  std::vector<std::byte> stored(static_cast<size_t>(count * size_of(type)));
  from.file->read(*from.tensor, static_cast<size_t>(begin * size_of(type)), stored.size(), stored.data());
  convert(type, stored.data(), count, DType::f32, values.data());
  return values;
}

// `what(i, number)` for each number of a tensor that may be large.
template <typename What>
void for_each_number(const PlacedTensor& from, const What& what) {
  constexpr int64_t kAtOnce = 65'536;
  for (int64_t begin = 0; begin < from.tensor->size(); begin += kAtOnce) {
    const auto values = numbers(from, begin, std::min(kAtOnce, from.tensor->size() - begin));
    for (size_t i = 0; i < values.size(); ++i) what(begin + static_cast<int64_t>(i), values[i]);
  }
}

// A tensor that belongs to a weight of NF4; bad_data where it is missing or of another type or size.
PlacedTensor part_of(const PlacedTensor& weight, const std::string& name, StoredType type, int64_t count,
                     const QuantisedTensor::Find& find) {
  const auto found = find(name);
  if (!found) fail(Fault::bad_data, "{} has no {}; fetch the model again", place_of(weight), name);
  if (found->tensor->dtype == type && found->tensor->size() == count) return *found;
  fail(Fault::bad_data, "{} is {} {}; it must be {} [{}]", place_of(*found), name_of(found->tensor->dtype),
       shape_text(found->tensor->shape), name_of(type), count);
}

void check_levels(const PlacedTensor& map) {
  const std::vector<float> found = numbers(map, 0, kNf4Levels.size());
  for (size_t i = 0; i < found.size(); ++i) {
    if (found[i] == kNf4Levels[i]) continue;
    fail(Fault::bad_data, "{} holds {:.9g} as number {} where NF4 has {:.9g}; other maps are not read", place_of(map),
         found[i], i, kNf4Levels[i]);
  }
}

std::string blocks_text(const ScaleBlocks& blocks) {
  if (blocks == ScaleBlocks{0, 0}) return "one scale for the whole tensor";
  if (blocks == ScaleBlocks{1, 0}) return "a scale for each row";
  return fmt::format("a scale for each block of {} × {}", blocks.rows, blocks.columns);
}

std::string module_of(const std::string& weight) { return weight.substr(0, weight.rfind('.')); }

}  // namespace

std::optional<QuantisedTensor> QuantisedTensor::open(const std::string& weight, const QuantisationConfig& config,
                                                     const Find& find) {
  const auto codes = find(weight);
  if (!codes) return std::nullopt;
  QuantisedTensor opened;
  opened.name_ = weight;
  opened.codes_ = *codes;
  if (config.is_nf4()) {
    if (find(weight + ".quant_state.bitsandbytes__fp4")) {
      fail(Fault::bad_data,
           "{} is stored in FP4; of bitsandbytes NF4 alone is read: fetch the model in 16 bits instead",
           place_of(*codes));
    }
    const bool quantised = find(weight + kState).has_value();
    if (!quantised && (find(weight + ".absmax") || codes->tensor->dtype == StoredType::u8))
      fail(Fault::bad_data, "{} has no {}{}; fetch the model again", place_of(*codes), weight, kState);
    if (!quantised) return std::nullopt;
    opened.open_nf4(find);
    return opened;
  }
  if (codes->tensor->dtype == StoredType::f8_e4m3) {
    opened.open_fp8(config, find);
    return opened;
  }
  for (const char* suffix : {"_scale", "_scale_inv"}) {
    if (!find(weight + suffix)) continue;
    fail(Fault::bad_data, "{} is stored as {} and has a scale, {}{}; allowed is F8_E4M3 with a scale, or none",
         place_of(*codes), name_of(codes->tensor->dtype), weight, suffix);
  }
  return std::nullopt;
}

// As config.json says, or, where it does not, as the scales' number does.
ScaleBlocks QuantisedTensor::blocks_of(const QuantisationConfig& config) const {
  const std::string module = module_of(name_);
  if (config.keeps(module)) {
    fail(Fault::bad_data, "{} is stored as F8_E4M3, but {} lists it among the modules that are not quantised",
         place_of(codes_), config.place);
  }
  const QuantisationConfig::Group* group = config.group_of(module);
  if (group == nullptr) {
    fail(Fault::bad_data, "{} is stored as F8_E4M3, but no group of {} has it as a target", place_of(codes_),
         config.place);
  }
  if (group->blocks) return *group->blocks;
  return scales_.tensor->size() == 1 ? ScaleBlocks{0, 0} : ScaleBlocks{128, 128};
}

void QuantisedTensor::open_fp8(const QuantisationConfig& config, const Find& find) {
  const StoredTensor& codes = *codes_.tensor;
  if (codes.shape.size() != 2) {
    fail(Fault::bad_data, "{} is F8_E4M3 {}; only matrices are read as fp8", place_of(codes_), shape_text(codes.shape));
  }
  rows_ = codes.shape[0], cols_ = codes.shape[1];
  auto scales = find(name_ + "_scale");
  if (config.method == QuantMethod::fp8) {
    if (auto inverse = find(name_ + "_scale_inv")) scales = inverse;
  }
  if (!scales) {
    fail(Fault::bad_data, "{} is stored as F8_E4M3 and has no {}_scale{}; fetch the model again", place_of(codes_),
         name_, config.method == QuantMethod::fp8 ? "_inv" : "");
  }
  scales_ = *scales;
  const StoredType type = scales_.tensor->dtype;
  if (!can_convert(type)) {
    fail(Fault::bad_data, "{} is stored as {}; allowed are F32, BF16 and F16", place_of(scales_), name_of(type));
  }
  // The decompressor of compressed-tensors multiplies in the scale's type, all others in fp32.
  if (config.method == QuantMethod::compressed_tensors)
    scaling_.rounding = type == StoredType::bf16  ? Rounding::bf16
                        : type == StoredType::f16 ? Rounding::f16
                                                  : Rounding::none;
  scaling_.blocks = blocks_of(config);
  scaling_.largest_input = config.largest_input;
  check_scales();
}

void QuantisedTensor::check_scales() const {
  const StoredTensor& scales = *scales_.tensor;
  const auto [high, wide] = scaling_.blocks;
  const std::vector<int64_t> grid = {blocks_touched(0, rows_, high), blocks_touched(0, cols_, wide)};
  const bool one = high == 0 && wide == 0 && scales.size() == 1 && scales.shape.size() <= 2;
  const bool flat = grid[1] == 1 && scales.shape == std::vector<int64_t>{grid[0]};
  if (scales.shape != grid && !one && !flat) {
    fail(Fault::bad_data, "{} is {}; {} of {} needs {}", place_of(scales_), shape_text(scales.shape),
         blocks_text(scaling_.blocks), shape_text(codes_.tensor->shape), shape_text(grid));
  }
  for_each_number(scales_, [&](int64_t i, float scale) {
    if (scale > 0 && std::isfinite(scale)) return;
    fail(Fault::bad_data, "{} holds {} as number {}; a scale must be positive and finite: fetch the model again",
         place_of(scales_), scale, i);
  });
}

void QuantisedTensor::open_nf4(const Find& find) {
  scaling_.kind = StoredScaling::Kind::nf4;
  const PlacedTensor stored = *find(name_ + kState);
  const StoredTensor& text = *stored.tensor;
  if (text.dtype != StoredType::u8 || text.bytes > kStateBytes) {
    fail(Fault::bad_data, "{} is {} {}; it must be at most {} bytes of JSON", place_of(stored), name_of(text.dtype),
         shape_text(text.shape), kStateBytes);
  }
  std::string json(text.bytes, '\0');
  stored.file->read(text, 0, json.size(), json.data());
  const Nf4State state = parse_nf4_state(json, place_of(stored));
  rows_ = state.rows, cols_ = state.cols;
  scaling_.nested = state.nested;
  scaling_.rounding = state.rounding;
  offset_ = state.offset;
  // bnb_4bit_quant_storage may give the bytes another type.
  if (static_cast<int64_t>(codes_.tensor->bytes) != rows_ * cols_ / 2) {
    fail(Fault::bad_data, "{} has {} bytes; [{}, {}], as {}{} says, needs {} in NF4", place_of(codes_),
         codes_.tensor->bytes, rows_, cols_, name_, kState, rows_ * cols_ / 2);
  }
  const int64_t blocks = rows_ * (cols_ / kNf4Block);
  check_levels(part_of(codes_, name_ + ".quant_map", StoredType::f32, kNf4Levels.size(), find));
  scales_ = part_of(codes_, name_ + ".absmax", state.nested ? StoredType::u8 : StoredType::f32, blocks, find);
  if (!state.nested) return;
  // Their last bits differ from version to version.
  const PlacedTensor map = part_of(codes_, name_ + ".nested_quant_map", StoredType::f32, kNf4AbsmaxLevels, find);
  levels_ = numbers(map, 0, kNf4AbsmaxLevels);
  for (size_t i = 0; i < levels_.size(); ++i) {
    if (std::fabs(levels_[i] - nf4_absmax_levels()[i]) <= kLevelsApart) continue;
    fail(Fault::bad_data, "{} holds {:.9g} as number {} where the dynamic map has {:.9g}; other maps are not read",
         place_of(map), levels_[i], i, nf4_absmax_levels()[i]);
  }
  const int64_t runs = (blocks + kNf4NestedBlock - 1) / kNf4NestedBlock;
  nested_ = part_of(codes_, name_ + ".nested_absmax", StoredType::f32, runs, find);
  for_each_number(nested_, [&](int64_t i, float absmax) {
    if (absmax >= 0 && std::isfinite(absmax)) return;
    fail(Fault::bad_data, "{} holds {} as number {}; it must be finite and not negative: fetch the model again",
         place_of(nested_), absmax, i);
  });
}

Fp8Slice QuantisedTensor::read_fp8(int64_t row, int64_t rows, int64_t col, int64_t cols) const {
  require(scaling_.kind == StoredScaling::Kind::fp8, "an fp8 slice is read of an fp8 weight");
  require(row >= 0 && rows >= 0 && row + rows <= rows_ && col >= 0 && cols >= 0 && col + cols <= cols_,
          "a slice lies inside its tensor");
  const auto [high, wide] = scaling_.blocks;
  Fp8Slice slice{
      .row = row, .rows = rows, .col = col, .cols = cols, .blocks = scaling_.blocks, .rounding = scaling_.rounding};
  slice.codes.resize(static_cast<size_t>(rows * cols));
  if (slice.codes.empty()) return slice;
  copy_rows(codes_, row, rows, {cols_, col, cols}, slice.codes.data());
  check_codes(slice);
  const int64_t grid = blocks_touched(0, cols_, wide), columns = blocks_touched(col, cols, wide);
  for (int64_t i = 0; i < blocks_touched(row, rows, high); ++i) {
    const auto some = numbers(scales_, (first_block(row, high) + i) * grid + first_block(col, wide), columns);
    slice.scales.insert(slice.scales.end(), some.begin(), some.end());
  }
  return slice;
}

void QuantisedTensor::check_codes(const Fp8Slice& slice) const {
  const auto wrong = std::ranges::find_if(slice.codes, [](uint8_t code) { return (code & 0x7f) == 0x7f; });
  if (wrong == slice.codes.end()) return;
  const int64_t at = wrong - slice.codes.begin();
  fail(Fault::bad_data, "{} holds a NaN in row {}, column {}; fetch the model again", place_of(codes_),
       slice.row + at / slice.cols, slice.col + at % slice.cols);
}

Nf4Slice QuantisedTensor::read_nf4(int64_t row, int64_t rows, int64_t col, int64_t cols) const {
  require(scaling_.kind == StoredScaling::Kind::nf4, "an NF4 slice is read of an NF4 weight");
  require(row >= 0 && rows >= 0 && row + rows <= rows_ && col >= 0 && cols >= 0 && col + cols <= cols_,
          "a slice lies inside its tensor");
  require(col % kNf4Block == 0 && cols % kNf4Block == 0, "columns of NF4 begin and end between blocks");
  Nf4Slice slice{.row = row,
                 .rows = rows,
                 .col = col,
                 .cols = cols,
                 .whole_cols = cols_,
                 .rounding = scaling_.rounding,
                 .levels = levels_,
                 .offset = offset_};
  slice.codes.resize(static_cast<size_t>(rows * cols / 2));
  if (slice.codes.empty()) return slice;
  copy_rows(codes_, row, rows, {cols_ / 2, col / 2, cols / 2}, slice.codes.data());
  const int64_t blocks = cols_ / kNf4Block, begin = col / kNf4Block, count = cols / kNf4Block;
  const auto wanted = static_cast<size_t>(rows * count);
  if (scaling_.nested) {
    slice.absmax_codes.resize(wanted);
    copy_rows(scales_, row, rows, {blocks, begin, count}, slice.absmax_codes.data());
    const int64_t first = (row * blocks + begin) / kNf4NestedBlock,
                  last = ((row + rows - 1) * blocks + begin + count - 1) / kNf4NestedBlock;
    slice.nested = numbers(nested_, first, last - first + 1);
    return slice;
  }
  constexpr int64_t kBytes = sizeof(float);
  slice.absmax.resize(wanted);
  copy_rows(scales_, row, rows, {blocks * kBytes, begin * kBytes, count * kBytes}, slice.absmax.data());
  for (size_t i = 0; i < wanted; ++i) {
    // Of a block of zeros it is 0.
    if (slice.absmax[i] >= 0 && std::isfinite(slice.absmax[i])) continue;
    fail(Fault::bad_data, "{} holds {} in row {}; it must be finite and not negative: fetch the model again",
         place_of(scales_), slice.absmax[i], row + static_cast<int64_t>(i) / count);
  }
  return slice;
}

int64_t QuantisedTensor::stored_bytes(const Fp8Slice& slice) const {
  return static_cast<int64_t>(slice.codes.size()) +
         static_cast<int64_t>(slice.scales.size()) * size_of(scales_.tensor->dtype);
}

int64_t QuantisedTensor::stored_bytes(const Nf4Slice& slice) const {
  return static_cast<int64_t>(slice.codes.size() + slice.absmax_codes.size()) +
         static_cast<int64_t>((slice.absmax.size() + slice.nested.size() + slice.levels.size()) * sizeof(float));
}

}  // namespace drover
