#include "trainer/export/export.h"

#include <cmath>

#include "kernels/base/error.h"
#include "model/files/factor.h"
#include "model/files/merged_writer.h"
#include "model/files/staged_directory.h"
#include "model/weight_table.h"
#include "trainer/export/relative_distance.h"
#include "trainer/setup/model_check.h"

namespace drover {

namespace {

AdapterMatrix whole_matrix(const Checkpoint& checkpoint, const std::string& factor) {
  const auto [rows, cols] = checkpoint.shape(factor);
  AdapterMatrix m{rows, cols, std::vector<float>(static_cast<size_t>(rows * cols))};
  checkpoint.read("parameters", factor, 0, rows, 0, cols, m.values.data());
  return m;
}

void check_some_b_counts(const Checkpoint& checkpoint) {
  for (const std::string& name : checkpoint.factor_names()) {
    if (factor_of(name) != Factor::b) continue;
    for (float v : whole_matrix(checkpoint, name).values) {
      if (v != 0) return;
    }
  }
  fail(Fault::bad_data,
       "{}: every B of the adapter is zero, so that it changes nothing; train more than the first step at a learning "
       "rate above 0 (with warm-up the first step has rate 0). "
       "Nothing was written",
       checkpoint.directory().string());
}

constexpr int64_t kRowsAtOnce = 1024;

}  // namespace

void export_adapter(const Checkpoint& checkpoint, DType dtype, const fs::path& out) {
  check_some_b_counts(checkpoint);
  FactorShapes shapes;
  for (const std::string& name : checkpoint.factor_names()) shapes[name] = checkpoint.shape(name);
  write_adapter(
      out, checkpoint.state().adapter, shapes, [&](const std::string& name) { return whole_matrix(checkpoint, name); },
      dtype);

  const AdapterFile back(out);
  if (back.shapes() != shapes)
    fail(Fault::corruption,
         "{}: read back, the adapter's {} tensors have other names or shapes than the {} that were written",
         out.string(), back.shapes().size(), shapes.size());
  for (const auto& [name, shape] : shapes) {
    AdapterMatrix written = whole_matrix(checkpoint, name);
    if (dtype == DType::bf16) {
      for (float& v : written.values) v = static_cast<float>(bf16(v));
    }
    if (back.read(name) != written)
      fail(Fault::corruption, "{}: read back, {} is not what was written", out.string(), name);
  }
}

void load_adapter(const fs::path& directory, const ModelConfig& model, AdapterSet& adapter) {
  const AdapterFile file(directory);
  std::vector<LinearSize> linears;
  for (size_t layer = 0; layer < adapter.layout().size(); ++layer) {
    for (Projection p : kAllProjections) {
      const LinearShape shape = shape_of(model, p);
      linears.push_back({module_path(static_cast<int64_t>(layer), p), shape.out, shape.in});
    }
  }
  check_adapter(file.config(), file.shapes(), linears, directory.string());
  adapter.load([&](const FactorSlice& f, float* values) {
    const AdapterMatrix m = file.read(f.name);
    for (int64_t r = 0; r < f.row_count; ++r) {
      const float* from = m.values.data() + (f.row_begin + r) * m.cols + f.col_begin;
      values = std::copy(from, from + f.col_count, values);
    }
  });
}

namespace {

// What a linear gives for the probe x: y = w·x, for the rows of w that are at hand.
std::vector<float> on_probe(Backend& backend, Tensor w, std::vector<float>& x) {
  std::vector<float> y(static_cast<size_t>(w.rows));
  backend.gemm(Trans::no, Trans::yes, 1, matrix(x.data(), 1, w.cols), w, 0, matrix(y.data(), 1, w.rows));
  return y;
}

// One tensor of the merged model, rows by rows. Returns how far the merged weight is off on the probe: ‖y_merged −
// (y_base + y_adapter)‖ / ‖…‖.
double write_merged(Backend& backend, ModelDirectory& base, const TensorSpec& tensor, double scale, AdapterMatrix a,
                    AdapterMatrix b, MergedWriter& writer) {
  const int64_t rows = tensor.shape[0], cols = tensor.shape.size() > 1 ? tensor.shape[1] : 1;
  const bool bf16_stored = tensor.dtype == StoredType::bf16;
  std::vector<float> x(static_cast<size_t>(cols)), ax, w;
  std::vector<bf16> rounded;
  for (int64_t i = 0; i < cols; ++i) x[static_cast<size_t>(i)] = static_cast<float>((i * 7919) % 13 - 6);
  if (a.rows > 0) ax = on_probe(backend, matrix(a.values.data(), a.rows, a.cols), x);
  RelativeDistance distance;
  for (int64_t row = 0; row < rows; row += kRowsAtOnce) {
    const int64_t count = std::min(kRowsAtOnce, rows - row);
    w.resize(static_cast<size_t>(count * cols));
    base.read(tensor.name, row, count, 0, cols, DType::f32, w.data());
    const Tensor whole = matrix(w.data(), count, cols);
    std::vector<float> expected;
    if (a.rows > 0) {
      const Tensor some_b = matrix(b.values.data() + row * b.cols, count, b.cols);
      expected = on_probe(backend, whole, x);
      const std::vector<float> from_adapter = on_probe(backend, some_b, ax);
      for (size_t i = 0; i < expected.size(); ++i) expected[i] += static_cast<float>(scale) * from_adapter[i];
      backend.gemm(Trans::no, Trans::no, static_cast<float>(scale), some_b, matrix(a.values.data(), a.rows, a.cols), 1,
                   whole);
    }
    const void* bytes = w.data();
    if (bf16_stored) {
      rounded.resize(w.size());
      backend.copy(whole, matrix(rounded.data(), count, cols));
      bytes = rounded.data();
    }
    writer.write(tensor.name, bytes, count * cols * size_of(bf16_stored ? DType::bf16 : DType::f32));
    if (a.rows == 0) continue;
    if (bf16_stored) backend.copy(matrix(rounded.data(), count, cols), whole);
    distance.add(on_probe(backend, whole, x), expected);
  }
  return distance.value();
}

}  // namespace

void export_merged(const Checkpoint& checkpoint, ModelDirectory& base, const fs::path& out, Backend& backend,
                   const std::function<void(const fs::path& staged)>& check) {
  check_weights(base);
  check_some_b_counts(checkpoint);
  const std::set<std::string> ours = {"config.json",        "generation_config.json", "tokenizer.json",
                                      "tokenizer.model",    "tokenizer_config.json",  "special_tokens_map.json",
                                      "chat_template.jinja"};
  StagedDirectory staged(out);
  std::vector<TensorSpec> tensors;
  for (const ParamSpec& spec : weight_table(base.config())) {
    tensors.push_back({spec.name, base.dtype(spec.name), base.shape(spec.name)});
  }
  MergedWriter writer(staged.path(), tensors);
  const AdapterMatcher matcher(checkpoint.state().adapter);
  double worst = 0;
  for (const TensorSpec& tensor : writer.order()) {
    if (tensor.dtype != StoredType::f32 && tensor.dtype != StoredType::bf16) {
      fail(Fault::bad_data, "{} is stored as {}; merged models are written from bf16 or fp32 checkpoints", tensor.name,
           name_of(tensor.dtype));
    }
    const std::string path = tensor.name.substr(0, tensor.name.rfind('.'));  // without ".weight"
    const auto target =
        tensor.shape.size() == 2 && path.find(".layers.") != std::string::npos ? matcher.match(path) : std::nullopt;
    if (!target) {
      write_merged(backend, base, tensor, 0, {}, {}, writer);
      continue;
    }
    const auto whole = [&](Factor factor) {
      return whole_matrix(checkpoint, fmt::format("{}{}", path, suffix_of(factor)));
    };
    worst =
        std::max(worst, write_merged(backend, base, tensor, target->scale, whole(Factor::a), whole(Factor::b), writer));
  }
  // One rounding to bf16 is off by at most 2⁻⁹ of a weight, and errors of a row partly cancel.
  if (!(worst <= 0x1p-7))
    fail(Fault::corruption, "a merged weight is off by {:.2e} from base and adapter together; nothing was written",
         worst);
  writer.commit();
  for (const std::string& name : ours) {
    if (fs::exists(base.path() / name)) fs::copy_file(base.path() / name, staged.path() / name);
  }

  ModelDirectory back(staged.path());
  check_weights(back);
  std::vector<float> values;
  for (const ParamSpec& spec : weight_table(back.config())) {
    for (int64_t row = 0; row < spec.rows; row += kRowsAtOnce) {
      const int64_t count = std::min(kRowsAtOnce, spec.rows - row);
      values.resize(static_cast<size_t>(count * spec.cols));
      back.read(spec.name, row, count, 0, spec.cols, DType::f32, values.data());
      for (float v : values) {
        if (!std::isfinite(v))
          fail(Fault::corruption, "read back, the merged {} holds a value that is not finite; nothing was written",
               spec.name);
      }
    }
  }
  check(staged.path());
  staged.commit();
}

}  // namespace drover
