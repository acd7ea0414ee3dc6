#include "model/files/safetensors_header.h"

#include <limits>
#include <unordered_set>

#include "kernels/base/json.h"
#include "model/files/safetensors.h"

namespace drover {

namespace {

class HeaderReader : public nlohmann::json_sax<nlohmann::json> {
 public:
  HeaderReader(SafetensorsHeader& header, const std::string& where) : header_(header), where_(where) {}

  bool null() override { return unexpected("null"); }
  bool boolean(bool) override { return unexpected("true or false"); }
  bool number_integer(number_integer_t value) override { return unexpected(fmt::format("the number {}", value)); }
  bool number_float(number_float_t, const string_t& text) override {
    return unexpected("the number " + clipped(text, 40));
  }
  bool binary(binary_t&) override { return unexpected("binary data"); }

  bool number_unsigned(number_unsigned_t value) override {
    if (state_ == State::shape) {
      if (value > static_cast<uint64_t>(std::numeric_limits<int64_t>::max()))
        wrong(fmt::format("the dimension {} is too large", value));
      if (entry().shape.size() >= kRankLimit) wrong(fmt::format("more than {} dimensions", kRankLimit));
      entry().shape.push_back(static_cast<int64_t>(value));
      return true;
    }
    if (state_ == State::offsets) {
      if (offsets_ >= 2) wrong("data_offsets of more than two numbers");
      (offsets_++ == 0 ? entry().begin : entry().end) = value;
      return true;
    }
    return unexpected(fmt::format("the number {}", value));
  }

  bool string(string_t& value) override {
    if (state_ == State::metadata) {
      header_.metadata[key_] = value;
      return true;
    }
    if (state_ != State::tensor || key_ != "dtype") return unexpected("a string");
    const auto type = stored_type(value);
    if (!type) {
      wrong(fmt::format(
          "the dtype \"{}\" is not supported; allowed are BOOL, U8 … U64, I8 … I64, F8_*, F16, BF16, F32, F64, C64",
          clipped(value, 40)));
    }
    entry().dtype = *type;
    return true;
  }

  bool start_object(size_t) override {
    if (state_ == State::outside) return enter(State::top);
    if (state_ != State::top) return unexpected("an object");
    if (key_ == "__metadata__") return enter(State::metadata);
    if (header_.entries.size() >= kTensorLimit) {
      fail(Fault::bad_data, "{}: more than {} tensors; files of that many are not read", where_, kTensorLimit);
    }
    header_.entries.emplace_back().name = key_;
    have_dtype_ = have_shape_ = have_offsets_ = false;
    return enter(State::tensor);
  }

  bool key(string_t& key) override {
    key_ = key;
    if (state_ == State::top) {
      if (key.size() > kNameLimit) {
        fail(Fault::bad_data, "{}: a tensor's name of {} bytes (\"{}\"); at most {} are allowed", where_, key.size(),
             clipped(key, 60), kNameLimit);
      }
      if (!names_.insert(key).second)
        fail(Fault::bad_data, "{}: the name \"{}\" stands twice in the header", where_, clipped(key));
    } else if (state_ == State::metadata) {
      if (header_.metadata.count(key) != 0)
        fail(Fault::bad_data, "{}: __metadata__ has the key \"{}\" twice", where_, clipped(key));
    } else {
      bool* have = key == "dtype"          ? &have_dtype_
                   : key == "shape"        ? &have_shape_
                   : key == "data_offsets" ? &have_offsets_
                                           : nullptr;
      if (have == nullptr) wrong(fmt::format("the unknown field \"{}\"", clipped(key, 40)));
      if (*have) wrong(fmt::format("the field \"{}\" twice", key));
      *have = true;
    }
    return true;
  }

  bool end_object() override {
    if (state_ == State::tensor && !(have_dtype_ && have_shape_ && have_offsets_))
      wrong("not all of dtype, shape and data_offsets");
    return enter(state_ == State::top ? State::outside : State::top);
  }

  bool start_array(size_t) override {
    if (state_ == State::tensor && key_ == "shape") return enter(State::shape);
    if (state_ == State::tensor && key_ == "data_offsets") {
      offsets_ = 0;
      return enter(State::offsets);
    }
    return unexpected("a list");
  }

  bool end_array() override {
    if (state_ == State::offsets && offsets_ != 2) wrong("data_offsets of fewer than two numbers");
    return enter(State::tensor);
  }

  bool parse_error(size_t position, const std::string&, const nlohmann::json::exception&) override {
    fail(Fault::bad_data, "{}: the header is not valid JSON at byte {}; the file is damaged or not a safetensors file",
         where_, position);
  }

 private:
  enum class State { outside, top, metadata, tensor, shape, offsets };

  HeaderEntry& entry() { return header_.entries.back(); }
  bool enter(State state) {
    state_ = state;
    return true;
  }
  bool unexpected(const std::string& what) {
    fail(Fault::bad_data, "{}: {} where the header may not have one (after the key \"{}\")", where_, what,
         clipped(key_));
  }
  [[noreturn]] void wrong(const std::string& what) {
    fail(Fault::bad_data, "{}: the tensor {} has {}", where_, clipped(entry().name), what);
  }

  SafetensorsHeader& header_;
  const std::string& where_;
  State state_ = State::outside;
  std::string key_;
  std::unordered_set<std::string> names_;
  int offsets_ = 0;
  bool have_dtype_ = false, have_shape_ = false, have_offsets_ = false;
};

}  // namespace

SafetensorsHeader parse_safetensors_header(std::string_view text, const std::string& where) {
  SafetensorsHeader header;
  HeaderReader reader(header, where);
  nlohmann::json::sax_parse(text.begin(), text.end(), &reader);
  return header;
}

}  // namespace drover
