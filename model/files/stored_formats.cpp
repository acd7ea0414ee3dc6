#include "model/files/stored_formats.h"

namespace drover {

namespace {

constexpr std::string_view kWeight = ".weight";

const char* name_of(QuantMethod method) {
  switch (method) {
    case QuantMethod::bitsandbytes: return "bitsandbytes";
    case QuantMethod::fbgemm_fp8: return "fbgemm_fp8";
    case QuantMethod::fp8: return "fp8";
    case QuantMethod::compressed_tensors: return "compressed-tensors";
    case QuantMethod::modelopt: return "modelopt";
  }
  return "none";
}

// "X.weight" of "X.weight.absmax", "X.weight_scale" and "X.input_scale".
std::string owner_of(const std::string& part) {
  const size_t at = part.rfind(kWeight);
  const size_t end = at == std::string::npos ? part.rfind('.') : at;
  return part.substr(0, end) + std::string(kWeight);
}

StoredFormats::Weight weight_of(ModelDirectory& model, const StoredTensor& tensor) {
  const std::optional<StoredScaling> scaling = model.scaling(tensor.name);
  if (!scaling) return {drover::name_of(tensor.dtype), tensor.shape};
  return {scaling->kind == StoredScaling::Kind::fp8 ? "fp8" : "nf4", model.shape(tensor.name)};
}

bool is_linear(const std::string& name, const StoredFormats::Weight& weight) {
  return weight.shape.size() == 2 && name.find(".layers.") != std::string::npos;
}

}  // namespace

StoredFormats stored_formats(ModelDirectory& model) {
  StoredFormats found{.method = "none"};
  if (const auto quantisation = read_quantisation(model.path())) found.method = name_of(quantisation->method);
  std::map<std::string, int64_t> stored;  // bytes of each tensor
  for (const std::string& name : model.files()) {
    const SafetensorsFile file(model.path() / name);
    for (const StoredTensor& tensor : file.tensors()) {
      stored[tensor.name] = static_cast<int64_t>(tensor.bytes);
      if (model.is_quantised() && is_quantisation_data(tensor.name) && model.has(owner_of(tensor.name))) {
        found.part_of[tensor.name] = owner_of(tensor.name);
        continue;
      }
      const auto& weight = found.weights[tensor.name] = weight_of(model, tensor);
      if (is_linear(tensor.name, weight)) ++found.linears[weight.format];
    }
  }
  for (const auto& [tensor, bytes] : stored) {
    const auto part = found.part_of.find(tensor);
    found.bytes[found.weights.at(part == found.part_of.end() ? tensor : part->second).format] += bytes;
  }
  return found;
}

}  // namespace drover
