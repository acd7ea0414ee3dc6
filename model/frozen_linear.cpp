#include "model/frozen_linear.h"

#include <algorithm>

#include "kernels/base/error.h"
#include "kernels/base/in_order.h"
#include "kernels/base/log.h"
#include "kernels/base/nf4.h"
#include "kernels/base/quantise.h"
#include "kernels/fp8_products.h"
#include "kernels/quantised_weight.h"
#include "model/dense_pieces.h"

namespace drover {

namespace {

Format format_of(StoredScaling::Kind kind) { return kind == StoredScaling::Kind::fp8 ? Format::fp8 : Format::nf4; }

// What all members are stored in; nothing where they differ or are plain numbers.
std::optional<StoredScaling> common_scaling(std::span<const LinearSlice> members, WeightSource& source) {
  const std::optional<StoredScaling> first = source.scaling(*members.front().spec);
  for (const LinearSlice& member : members.subspan(1)) {
    if (source.scaling(*member.spec) == first) continue;
    log::warn("{} and {} are quantised in different ways; both are dequantised", members.front().spec->name,
              member.spec->name);
    return {};
  }
  return first;
}

// The smallest range of whole blocks around `range`; the last block may be short.
Range outward(Range range, int64_t block, int64_t size) {
  const int64_t begin = range.begin / block * block, end = (range.begin + range.count + block - 1) / block * block;
  return {begin, std::min(end, size) - begin};
}

void check_nf4(const LinearSlice& member) {
  const ParamSpec& spec = *member.spec;
  if (spec.cols % kNf4Block != 0) {
    fail(Fault::bad_recipe, "model.weights: {} has {} columns, and NF4 needs whole blocks of {}; use fp8 or bf16",
         spec.name, spec.cols, kNf4Block);
  }
  if (member.cols.begin % kNf4Block == 0 && member.cols.count % kNf4Block == 0) return;
  fail(Fault::bad_recipe,
       "model.weights: parallel.tp cuts the {} columns of {} into {}, and NF4 needs whole blocks of {}; use a smaller "
       "parallel.tp, or fp8",
       spec.cols, spec.name, member.cols.count, kNf4Block);
}

}  // namespace

std::optional<StoredScaling> held_scaling(const std::optional<StoredScaling>& stored, WeightsAs as) {
  using Kind = StoredScaling::Kind;
  switch (as) {
    case WeightsAs::as_is: return stored;
    case WeightsAs::dense: return {};
    case WeightsAs::fp8: return stored && stored->kind == Kind::fp8 ? stored : StoredScaling{Kind::fp8, kMadeBlocks};
    case WeightsAs::nf4: break;
  }
  return stored && stored->kind == Kind::nf4 ? stored : StoredScaling{.kind = Kind::nf4, .nested = true};
}

FrozenLinear::FrozenLinear(std::span<const LinearSlice> members, WeightSource& source, const HeldAs& as)
    : members_(members.begin(), members.end()), source_(source), as_(as), format_(drover::format_of(as.dtype)) {
  const std::optional<StoredScaling> stored = common_scaling(members, source);
  const std::optional<StoredScaling> held = held_scaling(stored, as.weights);
  if (!held) return;
  scaling_ = *held;
  stored_ = stored == held;
  format_ = format_of(scaling_.kind);
  if (format_ == Format::nf4) std::ranges::for_each(members_, check_nf4);
}

WeightShape FrozenLinear::shape(int64_t adapter_rank) const {
  const Range cols = members_.front().cols;
  WeightShape shape{.in = cols.count, .format = format_, .adapter_rank = adapter_rank};
  for (const LinearSlice& member : members_) shape.out += member.rows.count;
  if (is_dense(format_)) return shape;
  shape.scaling = {
      scaling_.blocks,       scaling_.nested, scaling_.rounding, cols.begin, members_.front().spec->cols, {},
      scaling_.largest_input};
  for (const LinearSlice& member : members_) shape.scaling.parts.push_back({member.rows.begin, member.rows.count});
  if (as_.products == Products::fp8 && multiplies_in_fp8(shape) && ends_between_blocks())
    shape.products = Products::fp8;
  return shape;
}

// A rank's share is whole blocks, or all there is, so that all ranks' products are alike.
bool FrozenLinear::ends_between_blocks() const {
  const auto whole = [](Range own, int64_t all, int64_t block) {
    return block <= 1 || own.count == all || own.count % block == 0;
  };
  return std::ranges::all_of(members_, [&](const LinearSlice& m) {
    return whole(m.rows, m.spec->rows, scaling_.blocks.rows) && whole(m.cols, m.spec->cols, scaling_.blocks.columns);
  });
}

void FrozenLinear::load(Weight& weight, Backend& backend) const {
  if (is_dense(format_)) return load_dense(weight, backend);
  if (backend.memory().where() == Where::nowhere) return;
  for (size_t part = 0; part < members_.size(); ++part) {
    if (format_ == Format::fp8) {
      stored_ ? load_fp8(weight, backend, part) : make_fp8(weight, backend, part);
    } else {
      stored_ ? load_nf4(weight, backend, part) : make_nf4(weight, backend, part);
    }
  }
}

void FrozenLinear::load_dense(Weight& weight, Backend& backend) const {
  int64_t row = 0;
  for (const auto& [spec, rows, cols] : members_) {
    const auto read = [&](Tensor to) { read_to(source_, *spec, rows.begin, cols.begin, to, backend); };
    backend.load_weight(weight, row, rows.count, read);
    row += rows.count;
  }
}

void FrozenLinear::load_fp8(Weight& weight, Backend& backend, size_t part) const {
  const auto& [spec, rows, cols] = members_[part];
  in_pieces(rows, cols.count, 1, [&](int64_t begin, int64_t count) {
    static_cast<Fp8Weight&>(weight).load(backend, part, source_.read_fp8(*spec, {begin, count}, cols));
  });
}

void FrozenLinear::load_nf4(Weight& weight, Backend& backend, size_t part) const {
  const auto& [spec, rows, cols] = members_[part];
  in_pieces(rows, cols.count, 1, [&](int64_t begin, int64_t count) {
    static_cast<Nf4Weight&>(weight).load(backend, part, source_.read_nf4(*spec, {begin, count}, cols));
  });
}

// Whole blocks are read and quantised, and what belongs to this rank is cut from them.
void FrozenLinear::make_fp8(Weight& weight, Backend& backend, size_t part) const {
  const auto& [spec, rows, cols] = members_[part];
  const Range own = cols, wide = outward(cols, kMadeBlocks.columns, spec->cols);
  InOrder<Fp8Slice> pieces(as_.threads,
                           [&](const Fp8Slice& made) { static_cast<Fp8Weight&>(weight).load(backend, part, made); });
  const auto read = [&, spec = spec](int64_t begin, int64_t count) {
    const Range high = outward({begin, count}, kMadeBlocks.rows, spec->rows);
    pieces.add([=, values = floats(source_, *spec, high, wide)] {
      const Fp8Slice made = drover::make_fp8(values, high.begin, high.count, wide.begin, wide.count);
      return cut(made, begin, count, own.begin, own.count);
    });
  };
  in_pieces(rows, wide.count, kMadeBlocks.rows, read, kFloatsOfAThread);
  pieces.finish();
}

// The scales of NF4 depend on the whole tensor: it is read once for those, and this rank's slice once more.
void FrozenLinear::make_nf4(Weight& weight, Backend& backend, size_t part) const {
  const auto& [spec, rows, cols] = members_[part];
  const Range own = cols;
  const Nf4Scales scales = nf4_scales(source_, *spec, as_.threads);
  InOrder<Nf4Slice> pieces(as_.threads,
                           [&](const Nf4Slice& made) { static_cast<Nf4Weight&>(weight).load(backend, part, made); });
  const auto read = [&, spec = spec](int64_t begin, int64_t count) {
    pieces.add([=, &scales, values = floats(source_, *spec, {begin, count}, own)] {
      return scales.make(values, begin, count, own.begin, own.count);
    });
  };
  in_pieces(rows, cols.count, 1, read, kFloatsOfAThread);
  pieces.finish();
}

}  // namespace drover
