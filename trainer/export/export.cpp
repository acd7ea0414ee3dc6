#include "trainer/export/export.h"

#include "kernels/base/error.h"
#include "model/files/factor.h"
#include "trainer/export/model_card.h"

namespace drover {

namespace {

void check_some_b_counts(const Checkpoint& checkpoint) {
  for (const std::string& name : checkpoint.factor_names()) {
    if (factor_of(name) != Factor::b) continue;
    for (float v : checkpoint.parameters_of(name).values) {
      if (v != 0) return;
    }
  }
  fail(Fault::bad_data,
       "{}: every B of the adapter is zero, so that it changes nothing; train more than the first step at a learning "
       "rate above 0 (with warm-up the first step has rate 0). "
       "Nothing was written",
       checkpoint.directory().string());
}

}  // namespace

AdapterForm adapter_of(const Checkpoint& checkpoint) {
  check_some_b_counts(checkpoint);
  AdapterForm form{
      checkpoint.state().adapter, {}, [checkpoint](const std::string& name) { return checkpoint.parameters_of(name); }};
  for (const std::string& name : checkpoint.factor_names()) form.shapes[name] = checkpoint.shape(name);
  return form;
}

namespace {

std::set<std::string> replaceable_with(const MoreFiles& more) {
  std::set<std::string> names = more.names;
  names.insert(adapter_files().begin(), adapter_files().end());
  return names;
}

void check_written(const AdapterForm& adapter, DType dtype, const fs::path& directory, const fs::path& out) {
  const FactorShapes& shapes = adapter.shapes;
  const AdapterFile back(directory);
  if (back.shapes() != shapes)
    fail(Fault::corruption,
         "{}: read back, the adapter's {} tensors have other names or shapes than the {} that were written",
         out.string(), back.shapes().size(), shapes.size());
  for (const auto& [name, shape] : shapes) {
    AdapterMatrix written = adapter.values(name);
    if (dtype == DType::bf16) {
      for (float& v : written.values) v = static_cast<float>(bf16(v));
    }
    if (back.read(name) != written)
      fail(Fault::corruption, "{}: read back, {} is not what was written", out.string(), name);
  }
}

}  // namespace

StagedAdapter::StagedAdapter(const AdapterForm& adapter, DType dtype, const fs::path& out, const MoreFiles& more)
    : staged_(out, replaceable_with(more)) {
  write_adapter_files(path(), adapter.config, adapter.shapes, adapter.values, dtype);
  if (more.write) more.write(path());
  check_written(adapter, dtype, path(), out);
  has_page_ = keep_page(out, path());
}

void export_adapter(const AdapterForm& adapter, DType dtype, const fs::path& out, const MoreFiles& more) {
  StagedAdapter(adapter, dtype, out, more).commit();
}

void check_fits(const AdapterFile& file, const ModelConfig& model) {
  std::vector<LinearSize> linears = {{kEmbeddingModule, model.hidden, model.vocab}};
  for (const auto [layer, p] : linears_of(model)) {
    const LinearShape shape = shape_of(model, p);
    linears.push_back({module_path(layer, p), shape.out, shape.in});
  }
  FactorShapes factors = file.shapes();
  std::erase_if(factors, [](const auto& tensor) { return !factor_of(tensor.first); });
  check_adapter(file.config(), factors, linears, file.directory().string());
}

void copy_slice(const AdapterMatrix& whole, const FactorSlice& slice, float* values) {
  for (int64_t r = 0; r < slice.row_count; ++r) {
    const float* from = whole.values.data() + (slice.row_begin + r) * whole.cols + slice.col_begin;
    values = std::copy(from, from + slice.col_count, values);
  }
}

void load_adapter(const fs::path& directory, const ModelConfig& model, AdapterSet& adapter) {
  const AdapterFile file(directory);
  check_fits(file, model);
  adapter.load([&](const FactorSlice& f, float* values) { copy_slice(file.read(f.name), f, values); });
}

}  // namespace drover
