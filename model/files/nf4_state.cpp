#include "model/files/nf4_state.h"

#include "kernels/base/json.h"
#include "kernels/base/nf4.h"
#include "model/files/config_fields.h"

namespace drover {

namespace {

constexpr int64_t kLongest = 1 << 24;  // rows or columns: no product of two overflows

Rounding rounding_of(const ConfigFields& state) {
  const std::string dtype = state.text("dtype");
  if (dtype == "bfloat16") return Rounding::bf16;
  if (dtype == "float16") return Rounding::f16;
  if (dtype == "float32") return Rounding::none;
  fail(Fault::bad_data, "{} is \"{}\"; allowed are bfloat16, float16 and float32", state.place("dtype"),
       clipped(dtype));
}

void read_shape(const Json& json, const ConfigFields& state, Nf4State& read) {
  const auto shape = json.find("shape");
  const auto good = [](const Json& n) {
    return n.is_number_integer() && n.get<double>() >= 1 && n.get<double>() <= static_cast<double>(kLongest);
  };
  if (shape == json.end() || !shape->is_array() || shape->size() != 2 || !good((*shape)[0]) || !good((*shape)[1])) {
    fail(Fault::bad_data, "{} is {}; allowed is [rows, columns], each from 1 to {}", state.place("shape"),
         shape == json.end() ? "missing" : clipped(shape->dump(-1, ' ', false, Json::error_handler_t::replace)),
         kLongest);
  }
  read.rows = (*shape)[0].get<int64_t>();
  read.cols = (*shape)[1].get<int64_t>();
  if (read.cols % kNf4Block == 0) return;
  fail(Fault::bad_data,
       "{} is [{}, {}]; columns must be a multiple of {}: a block of {} that reaches from one row into the next is not "
       "read; fetch the model in 16 bits instead",
       state.place("shape"), read.rows, read.cols, kNf4Block, kNf4Block);
}

}  // namespace

Nf4State parse_nf4_state(std::string_view text, const std::string& where) {
  const Json json = parse_json(text, where);
  if (!json.is_object()) fail(Fault::bad_data, "{}: holds {} where an object is expected", where, type_name(json));
  const ConfigFields state(json, where);
  Nf4State read;
  if (state.text("quant_type") != "nf4") state.allow_text("quant_type", "nf4");
  state.integer("blocksize", kNf4Block, kNf4Block);
  read.rounding = rounding_of(state);
  read_shape(json, state, read);
  for (const char* name : {"nested_blocksize", "nested_dtype", "nested_offset"}) read.nested |= state.has(name);
  if (!read.nested) return read;
  state.integer("nested_blocksize", kNf4NestedBlock, kNf4NestedBlock);
  if (state.text("nested_dtype") != "float32") state.allow_text("nested_dtype", "float32");
  read.offset = static_cast<float>(state.number("nested_offset", -1e30, 1e30));
  return read;
}

}  // namespace drover
