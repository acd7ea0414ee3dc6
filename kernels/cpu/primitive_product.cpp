#include "kernels/cpu/primitive_product.h"

#include <algorithm>
#include <array>
#include <cstring>
#include <map>
#include <oneapi/dnnl/dnnl.hpp>
#include <tuple>

namespace drover::cpu {

namespace {

// The largest that fits is taken, so that most counts of rows are two or three pieces.
constexpr std::array<int64_t, 11> kSizes{2048, 1536, 1024, 768, 512, 384, 256, 128, 64, 32, 16};
constexpr int64_t kShapes = 48;  // with rows of one size, of a model with adapters on all its linears
constexpr int64_t kPrimitiveBytes = int64_t{48} << 10;  // of generated code: 28 to 76 KiB were seen
constexpr int64_t kScratchBytes = int64_t{512} << 10;   // of a thread in a primitive; 64 to 260 KiB were seen
constexpr int64_t kFilledNumbers = int64_t{512} << 10;  // of a copy, unless sixteen rows are wider

dnnl::memory::data_type dnnl_type(DType type) {
  return type == DType::bf16 ? dnnl::memory::data_type::bf16 : dnnl::memory::data_type::f32;
}

// Of op(t).
dnnl::memory::desc described(Trans trans, Tensor t) {
  if (trans == Trans::no) return {{t.rows, t.cols}, dnnl_type(t.dtype), dnnl::memory::dims{t.pitch, 1}};
  return {{t.cols, t.rows}, dnnl_type(t.dtype), dnnl::memory::dims{1, t.pitch}};
}

}  // namespace

std::vector<Piece> pieces_of(int64_t rows, int64_t pitch) {
  std::vector<Piece> pieces;
  int64_t begin = 0;
  while (rows - begin >= kPieceRows) {
    const int64_t size = *std::ranges::find_if(kSizes, [&](int64_t s) { return s <= rows - begin; });
    pieces.push_back({begin, size, size});
    begin += size;
  }
  int64_t size = in_pieces(rows - begin);
  for (; size > kSizes.back() && size * pitch > kFilledNumbers; size /= 2) {
    if (rows - begin < size / 2) continue;
    pieces.push_back({begin, size / 2, size / 2});
    begin += size / 2;
  }
  if (begin < rows) pieces.push_back({begin, rows - begin, std::min(size, in_pieces(rows - begin))});
  return pieces;
}

Tensor filled(Tensor rows, const Piece& piece, std::vector<bf16>& copy) {
  const Tensor from = rows.rows_from(piece.begin, piece.count);
  if (piece.count == piece.size) return from;
  const int64_t bytes = size_of(rows.dtype);
  const auto numbers = static_cast<size_t>(piece.size * rows.pitch * bytes / size_of(DType::bf16));
  if (copy.size() < numbers) copy = std::vector<bf16>(numbers);
  const Tensor to{copy.data(), piece.size, rows.cols, rows.pitch, rows.dtype};
  for (int64_t r = 0; r < piece.size; ++r) {
    char* const row = static_cast<char*>(to.data) + r * to.pitch * bytes;
    if (r < piece.count) {
      std::memcpy(row, static_cast<const char*>(from.data) + r * from.pitch * bytes,
                  static_cast<size_t>(rows.cols * bytes));
    } else {
      std::memset(row, 0, static_cast<size_t>(rows.cols * bytes));
    }
  }
  return to;
}

struct PrimitiveProduct::Primitive {
  dnnl::matmul matmul;
  dnnl::memory::desc a, b, c, scratch;
  int64_t used = 0;  // when, last
};

struct PrimitiveProduct::Store {
  using Key =
      std::tuple<Trans, Trans, DType, DType, DType, int64_t, int64_t, int64_t, int64_t, int64_t, int64_t, float, bool>;
  dnnl::engine engine{dnnl::engine::kind::cpu, 0};
  dnnl::stream stream{engine};
  std::map<Key, Primitive> primitives;
  int64_t uses = 0;
  // One for all, so that it is known and counted.
  dnnl::memory scratch;
  dnnl::memory scratch_for(const dnnl::memory::desc& desc) {
    if (!scratch || scratch.get_desc().get_size() < desc.get_size()) scratch = dnnl::memory(desc, engine);
    return dnnl::memory(desc, engine, scratch.get_data_handle());
  }
  // The one that was not used for the longest time makes room.
  void make_room(int64_t most) {
    if (static_cast<int64_t>(primitives.size()) < most) return;
    primitives.erase(std::ranges::min_element(primitives, {}, [](const auto& p) { return p.second.used; }));
  }
};

PrimitiveProduct::PrimitiveProduct(int threads, int64_t most)
    : store_(std::make_unique<Store>()), threads_(threads), most_(most) {
  dnnl::set_primitive_cache_capacity(0);  // a second cache, which would keep what this one has dropped
}
PrimitiveProduct::~PrimitiveProduct() = default;

int64_t PrimitiveProduct::workspace_bytes(int64_t rows) const {
  const int64_t largest = in_pieces(std::min(rows, kSizes.front())),
                sizes = std::ranges::count_if(kSizes, [&](int64_t size) { return size <= largest; });
  return std::min(kShapes * sizes, most_) * kPrimitiveBytes + threads_ * kScratchBytes +
         2 * kFilledNumbers * size_of(DType::bf16);
}

const PrimitiveProduct::Primitive& PrimitiveProduct::primitive(const Call& p) {
  const Store::Key key{p.ta,        p.tb,      p.a.dtype, p.b.dtype,
                       p.c.dtype,   p.c.rows,  p.c.cols,  p.ta == Trans::no ? p.a.cols : p.a.rows,
                       p.a.pitch,   p.b.pitch, p.c.pitch, p.alpha,
                       p.accumulate};
  auto found = store_->primitives.find(key);
  if (found == store_->primitives.end()) {
    store_->make_room(most_);
    dnnl::primitive_attr attributes;
    attributes.set_scratchpad_mode(dnnl::scratchpad_mode::user);
    if (p.alpha != 1) attributes.set_output_scales(0, {p.alpha});
    dnnl::post_ops post;
    if (p.accumulate) post.append_sum(1);
    attributes.set_post_ops(post);
    const auto a = described(p.ta, p.a), b = described(p.tb, p.b), c = described(Trans::no, p.c);
    const dnnl::matmul::primitive_desc description({a, b, c}, attributes, store_->engine);
    found =
        store_->primitives.emplace(key, Primitive{dnnl::matmul(description), a, b, c, description.scratchpad_desc()})
            .first;
    ++built_;
  }
  found->second.used = ++store_->uses;
  return found->second;
}

void PrimitiveProduct::whole(const Call& p) {
  const Primitive& primitive = this->primitive(p);
  const auto at = [&](const dnnl::memory::desc& desc, Tensor t) { return dnnl::memory(desc, store_->engine, t.data); };
  primitive.matmul.execute(store_->stream, {{DNNL_ARG_SRC, at(primitive.a, p.a)},
                                            {DNNL_ARG_WEIGHTS, at(primitive.b, p.b)},
                                            {DNNL_ARG_DST, at(primitive.c, p.c)},
                                            {DNNL_ARG_SCRATCHPAD, store_->scratch_for(primitive.scratch)}});
  store_->stream.wait();
}

void PrimitiveProduct::by_rows(const Call& p) {
  require(p.ta == Trans::no && p.c.rows >= in_pieces(p.a.rows), "rows in pieces have room for what is filled up");
  for (const Piece& piece : pieces_of(p.a.rows, p.a.pitch)) {
    whole({Trans::no, p.tb, p.alpha, filled(p.a, piece, left_), p.b, p.accumulate,
           p.c.rows_from(piece.begin, piece.size)});
  }
}

void PrimitiveProduct::by_sums(const Call& p) {
  require(p.ta == Trans::yes && p.tb == Trans::no, "the sum's index is both operands' rows");
  for (const Piece& piece : pieces_of(p.a.rows, std::max(p.a.pitch, p.b.pitch))) {
    whole({p.ta, p.tb, p.alpha, filled(p.a, piece, left_), filled(p.b, piece, right_), p.accumulate || piece.begin > 0,
           p.c});
  }
}

}  // namespace drover::cpu
