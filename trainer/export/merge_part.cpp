#include "trainer/export/merge_part.h"

namespace drover {

namespace {

class PlainPart : public MergePart {
 public:
  PlainPart(const ParamSpec& spec, BaseWeights& base, MergedRows& rows)
      : tensor_{spec.name, base.plain_dtype(spec.name), base.shape(spec.name)}, cols_(spec.cols), rows_(rows) {}

  std::vector<TensorSpec> tensors() const override { return {tensor_}; }

  void write(const std::string& tensor, const Put& put) override {
    require(tensor == tensor_.name, "a plain weight is one tensor");
    const auto store = [&](int64_t, std::vector<float>& values) {
      const std::vector<std::byte> bytes = rounded(tensor_.dtype, values);
      put(bytes.data(), static_cast<int64_t>(bytes.size()));
    };
    rows_.each(tensor, tensor_.dtype, rows_of_a_piece(cols_), store,
               [&](const MergedTensor& piece, const std::vector<float>& merged) { add(piece, merged, tensor); });
  }

 private:
  TensorSpec tensor_;
  int64_t cols_;
  MergedRows& rows_;
};

}  // namespace

void MergePart::add(const MergedTensor& piece, const std::vector<float>& merged, const std::string& name) {
  if (!update_) update_.emplace(TensorUpdate{.name = name});
  update_->add(piece.base(), piece.update(), merged);
}

std::unique_ptr<WeightPart> plain_part(const ParamSpec& spec, BaseWeights& base, MergedRows& rows) {
  return std::make_unique<PlainPart>(spec, base, rows);
}

WeightParts plain_parts(const std::vector<ParamSpec>& table, BaseWeights& base, MergedRows& rows) {
  WeightParts parts;
  for (const ParamSpec& spec : table) parts.push_back(plain_part(spec, base, rows));
  return parts;
}

}  // namespace drover
