// Matrix products on CUDA: which algorithm is asked for, the tuned cache, low-rank terms in strips, and the streaming kernel for a few rows.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cstdlib>
#include <filesystem>
#include <optional>

#include "kernels/base/error.h"
#include "kernels/base/file.h"
#include "kernels/cuda/cuda_backend.h"
#include "kernels/cuda/gemv.h"
#include "kernels/cuda/strip.h"
#include "tests/cuda/emulation/emulated_cublaslt.h"
#include "tests/reference/compare.h"

namespace drover::cuda {
namespace {

using namespace reference;
using emulation::lt_record;
using testing::HasSubstr;

Matrix<Bounded> bounded(const Doubles& values) { return as<Bounded>(values); }
constexpr DType kFloats[] = {DType::f32, DType::bf16};

// An environment variable while this lives.
class Variable {
 public:
  Variable(const char* name, const std::string& value) : name_(name) {
    if (const char* old = std::getenv(name)) before_ = old;
    setenv(name, value.c_str(), 1);
  }
  ~Variable() { before_ ? setenv(name_, before_->c_str(), 1) : unsetenv(name_); }
  Variable(const Variable&) = delete;
  Variable& operator=(const Variable&) = delete;

 private:
  const char* name_;
  std::optional<std::string> before_;
};

// A file for the tuned cache, found by the backend while this lives.
class TunedFile {
 public:
  TunedFile() : directory_(std::filesystem::temp_directory_path() / fmt::format("drover-matmul-{}", getpid())), named_("DROVER_MATMUL_CACHE", path().string()) {
    std::filesystem::remove_all(directory_);
  }
  ~TunedFile() { std::filesystem::remove_all(directory_); }
  std::filesystem::path path() const { return directory_ / "deep" / "matmul-algorithms"; }

 private:
  std::filesystem::path directory_;
  Variable named_;
};

// Operands of one product with its expected value.
struct Product {
  Held a, b, c;
  Product(int64_t m, int64_t n, int64_t k, DType in = DType::bf16, DType out = DType::bf16)
      : a(drawn_matrix(1, m, k, in), in), b(drawn_matrix(2, k, n, in), in), c(m, n, out) {}
  void run(Matmul& matmul) const { matmul(Trans::no, Trans::no, 1, a, b, 0, c); }
  MatmulKey key() const { return matmul_key(Trans::no, Trans::no, a, b, 0, c); }
  testing::AssertionResult right() const {
    return as_expected(c, product(Trans::no, Trans::no, 1, bounded(a.values()), bounded(b.values()), 0, bounded(Doubles(c->rows, c->cols))));
  }
};

uint32_t mask_of(bool deterministic, DType out) {
  Matmul matmul(nullptr, deterministic);
  Product(16, 16, 32, DType::bf16, out).run(matmul);
  return lt_record.reduction_mask;
}

TEST(Matmul, SplitSumsAreOnlyPutTogetherInFp32AndReproduciblyWhereAsked) {
  for (const DType out : kFloats) EXPECT_EQ(mask_of(true, out), CUBLASLT_REDUCTION_SCHEME_COMPUTE_TYPE);
  EXPECT_EQ(mask_of(false, DType::bf16), CUBLASLT_REDUCTION_SCHEME_COMPUTE_TYPE);
  EXPECT_EQ(mask_of(false, DType::f32), CUBLASLT_REDUCTION_SCHEME_COMPUTE_TYPE | CUBLASLT_REDUCTION_SCHEME_INPLACE);
}

TEST(Matmul, AnAlgorithmIsChosenOnceAShape) {
  Matmul matmul(nullptr, true);
  const Product one(24, 16, 40), other(24, 24, 40);
  const int64_t before = lt_record.heuristics;
  for (int i = 0; i < 3; ++i) {
    one.run(matmul);
    other.run(matmul);
  }
  EXPECT_EQ(lt_record.heuristics - before, 2);
  EXPECT_TRUE(one.right());
  EXPECT_TRUE(other.right());
}

TEST(Matmul, TheKeyHoldsWhatAnAlgorithmMayDependOn) {
  const Held a(16, 24, DType::bf16, 8), b(16, 24, DType::bf16), c(16, 16, DType::f32);
  const MatmulKey key = matmul_key(Trans::no, Trans::yes, a, b, 1, c);
  EXPECT_EQ(key, (MatmulKey{false, true, 16, 16, 24, 32, 24, 16, DType::bf16, DType::f32, true, 16}));
  EXPECT_EQ(text_of(key), "nt 16x16x24 pitch 32,24,16 bf16 to f32 added align 16");
  MatmulKey others[] = {key, key, key, key, key, key, key, key, key, key, key, key};
  others[0].transpose_a = true;
  others[1].transpose_b = false;
  others[2].m = others[3].n = others[4].k = others[5].pitch_a = others[6].pitch_b = others[7].pitch_c = 48;
  others[8].in = DType::f32;
  others[9].out = DType::bf16;
  others[10].accumulate = false;
  others[11].alignment = 4;
  for (const MatmulKey& other : others) {
    EXPECT_NE(other, key);
    EXPECT_NE(text_of(other), text_of(key));
  }
  const auto alignment = [&](Tensor left) { return matmul_key(Trans::no, Trans::yes, left, Tensor(b).columns(0, left.cols), 0, c).alignment; };
  EXPECT_EQ(alignment(Tensor(a).columns(4, 8)), 8);
  EXPECT_EQ(alignment(Tensor(a).columns(1, 8)), 2);
}

TEST(Matmul, ASingleRowsPitchMeansNothing) {
  Matmul matmul(nullptr, true);
  const Product p(1, 16, 24);
  Tensor a = p.a;
  a.pitch = 1;
  matmul(Trans::no, Trans::no, 1, a, p.b, 0, p.c);
  EXPECT_TRUE(p.right());
}

TEST(Matmul, EmptyOperands) {
  Matmul matmul(nullptr, true);
  for (const DType type : kFloats) {
    const Held none(0, 5, type), b(drawn_matrix(1, 5, 7, type), type), no_rows(0, 7, type), no_columns(5, 0, type);
    const int64_t before = lt_record.products;
    matmul(Trans::no, Trans::no, 1, none, b, 0, no_rows);
    matmul(Trans::yes, Trans::no, 1, b, no_columns, 0, Held(7, 0, type));
    const Doubles old = drawn_matrix(2, 3, 7, type);
    const Held a(3, 0, type), w(0, 7, type), kept(old, type, 2), cleared(old, type, 2);
    matmul(Trans::no, Trans::no, 1, a, w, 1, kept);
    matmul(Trans::no, Trans::no, 1, a, w, 0, cleared);
    EXPECT_TRUE(exactly(kept, old));
    EXPECT_TRUE(exactly(cleared, Doubles(3, 7)));
    EXPECT_EQ(lt_record.products, before);
  }
}

TEST(Matmul, WhatDoesNotFitIsRefusedByShape) {
  Matmul matmul(nullptr, true);
  const auto refused = [&](Tensor a, Tensor b, Tensor c) {
    try {
      matmul(Trans::no, Trans::yes, 1, a, b, 0, c);
    } catch (const Error& error) {
      EXPECT_EQ(error.code(), Exit::internal);
      return std::string(error.what());
    }
    return std::string();
  };
  const Held wide(3, 8, DType::f32), narrow(4, 8, DType::bf16), long_one(4, 9, DType::f32), f32(3, 4, DType::f32), bf16(3, 4, DType::bf16);
  EXPECT_THAT(refused(wide, narrow, f32), HasSubstr("no product of 3×8 f32 and 4×8 bf16 transposed is 3×4 f32"));
  EXPECT_THAT(refused(wide, Held(4, 8, DType::f32), bf16), HasSubstr("3×4 bf16"));
  EXPECT_THAT(refused(wide, long_one, f32), HasSubstr("4×9 f32"));
}

// --- tuned algorithms -----------------------------------------------------------------------------------------------------------

TunedAlgorithm made_up(unsigned char seed, double us) {
  TunedAlgorithm t;
  for (size_t i = 0; i < sizeof(t.algorithm); ++i) reinterpret_cast<unsigned char*>(&t.algorithm)[i] = static_cast<unsigned char>(seed + 37 * i);
  t.microseconds = us;
  return t;
}
bool same(const TunedAlgorithm& a, const TunedAlgorithm& b) {
  return std::memcmp(&a.algorithm, &b.algorithm, sizeof(a.algorithm)) == 0 && a.microseconds == b.microseconds;
}
const TunedFor kHere{"GPU \"A\"", 130100};

std::string warnings(const std::function<void()>& f) {
  testing::internal::CaptureStderr();
  f();
  return testing::internal::GetCapturedStderr();
}

TEST(Tuning, WhatIsWrittenIsRead) {
  const TunedFile file;
  const TunedAlgorithms written{{"nt 1x2x3", made_up(1, 12.5)}, {"nn 4x5x6", made_up(2, 0.125)}};
  write_tuned(file.path(), kHere, written);
  TunedAlgorithms read;
  EXPECT_EQ(warnings([&] { read = read_tuned(tuned_path(), kHere); }), "");
  ASSERT_EQ(read.size(), 2u);
  for (const auto& [matmul, tuned] : written) EXPECT_TRUE(same(read.at(matmul), tuned)) << matmul;
}

TEST(Tuning, LinesOfOtherDevicesAreSkippedAndKept) {
  const TunedFile file;
  const TunedFor other_gpu{"GPU B", kHere.cublaslt}, other_version{kHere.gpu, 130200};
  write_tuned(file.path(), kHere, {{"x", made_up(1, 1)}, {"y", made_up(2, 2)}});
  write_tuned(file.path(), other_gpu, {{"x", made_up(3, 3)}});
  write_tuned(file.path(), other_version, {{"x", made_up(4, 4)}});
  write_tuned(file.path(), kHere, {{"y", made_up(5, 5)}});
  TunedAlgorithms read;
  const std::string said = warnings([&] { read = read_tuned(file.path(), kHere); });
  EXPECT_THAT(said, HasSubstr("2 lines are skipped: 0 are not understood and 2 are for another GPU or cuBLASLt"));
  EXPECT_TRUE(same(read.at("x"), made_up(1, 1)));
  EXPECT_TRUE(same(read.at("y"), made_up(5, 5)));
  EXPECT_TRUE(same(read_tuned(file.path(), other_gpu).at("x"), made_up(3, 3)));
  EXPECT_TRUE(same(read_tuned(file.path(), other_version).at("x"), made_up(4, 4)));
}

TEST(Tuning, BadLinesAreSkippedWithOneWarning) {
  const TunedFile file;
  write_tuned(file.path(), kHere, {{"good", made_up(1, 1)}});
  const std::string good = read_text(file.path());
  const auto changed = [&](const std::string& from, const std::string& to) {
    std::string text = good;
    return text.replace(text.find(from), from.size(), to);
  };
  const std::string hex = good.substr(good.find("algorithm\":\"") + 12, 128);
  const std::string bad[] = {"{\"gpu\":\n",
                             "[]\n",
                             "null\n",
                             std::string("\0\xff\xfe\n", 4),
                             changed(hex, hex.substr(1)),
                             changed(hex, "g" + hex.substr(1)),
                             changed("130100", "\"130100\""),
                             changed("\"good\"", "7"),
                             changed("\"us\":1.0", "\"us\":null")};
  std::string text;
  for (const std::string& line : bad) text += line;
  write_text(file.path(), text + "\n" + good.substr(0, good.size() - 1));  // the last line without its end
  TunedAlgorithms read;
  const std::string said = warnings([&] { read = read_tuned(file.path(), kHere); });
  EXPECT_EQ(std::count(said.begin(), said.end(), '\n'), 1) << said;
  EXPECT_THAT(said, HasSubstr("9 lines are skipped: 9 are not understood and 0 are"));
  EXPECT_EQ(read.size(), 1u);
  EXPECT_TRUE(same(read.at("good"), made_up(1, 1)));
}

TEST(Tuning, NoFileIsNoTuningAndAnUnreadableOneIsNotFatal) {
  const TunedFile file;
  EXPECT_EQ(warnings([&] { EXPECT_TRUE(read_tuned(file.path(), kHere).empty()); }), "");
  EXPECT_EQ(warnings([&] { EXPECT_TRUE(read_tuned("", kHere).empty()); }), "");
  std::filesystem::create_directories(file.path());
  EXPECT_THAT(warnings([&] { EXPECT_TRUE(read_tuned(file.path(), kHere).empty()); }), HasSubstr("tuned algorithms are not used"));
}

TEST(Tuning, ThePathComesFromTheEnvironment) {
  const Variable home("HOME", "/home/me"), none("XDG_CACHE_HOME", ""), unnamed("DROVER_MATMUL_CACHE", "");
  EXPECT_EQ(tuned_path(), "/home/me/.cache/drover/matmul-algorithms");
  const Variable caches("XDG_CACHE_HOME", "/caches");
  EXPECT_EQ(tuned_path(), "/caches/drover/matmul-algorithms");
  const Variable named("DROVER_MATMUL_CACHE", "here");
  EXPECT_EQ(tuned_path(), "here");
}

TEST(Tuning, ATunedAlgorithmIsUsedWhereItRuns) {
  const TunedFile file;
  const Product p(16, 24, 32, DType::bf16, DType::f32);
  const auto chosen = [&](const TunedAlgorithm& tuned, bool deterministic, const char* warning) {
    write_tuned(file.path(), this_device(), {{text_of(p.key()), tuned}});
    const std::string said = warnings([&] {
      Matmul matmul(nullptr, deterministic);
      p.run(matmul);
    });
    EXPECT_TRUE(p.right());
    EXPECT_THAT(said, HasSubstr(warning));
    EXPECT_EQ(said.empty(), *warning == 0) << said;
    return lt_record.algorithm;
  };
  const char* refused = "does not run here; tune again";
  const auto numbered = [](int id) { return TunedAlgorithm{emulation::lt_algorithm(id), 1}; };
  EXPECT_EQ(chosen(numbered(emulation::lt_split), false, ""), emulation::lt_split);
  EXPECT_EQ(chosen(numbered(emulation::lt_split), true, ""), emulation::lt_plain);  // the cache may change between two runs, and bits must not
  EXPECT_EQ(chosen(numbered(emulation::lt_in_place), false, ""), emulation::lt_in_place);
  EXPECT_EQ(chosen(numbered(emulation::lt_workspace_too_large), false, refused), emulation::lt_in_place);
  EXPECT_EQ(chosen(made_up(9, 1), false, refused), emulation::lt_in_place);  // no algorithm of this library
}

// Into a c that is added to, several times, against a backend that never tunes.
TEST(Tuning, WhatComesAgainAndAgainIsTunedOnceAndKept) {
  const TunedFile file;
  const TuningPolicy policy{.least_multiplications = 16 * 24 * 32, .after_uses = 3, .rows_multiple = 16};
  const Product often(16, 24, 32, DType::bf16, DType::f32), never(16, 24, 32, DType::bf16, DType::f32), small(16, 24, 31, DType::bf16, DType::f32), odd(17, 24, 32, DType::bf16, DType::f32);
  Matmul tuning(nullptr, false, policy), plain(nullptr, true, policy);
  const auto add = [](Matmul& matmul, const Product& p) { matmul(Trans::no, Trans::no, 1, p.a, p.b, 1, p.c); };
  for (const Product* p : {&often, &never}) p->run(plain);
  for (const Product* p : {&small, &odd}) p->run(tuning);
  const std::string said = warnings([&] {
    for (int i = 0; i < 8; ++i) {
      add(tuning, often);
      add(tuning, small);
      add(tuning, odd);
    }
  });
  for (int i = 0; i < 8; ++i) add(plain, never);
  EXPECT_THAT(said, HasSubstr("16x24x32"));
  EXPECT_EQ(std::count(said.begin(), said.end(), '\n'), 1) << said;
  for (int64_t i = 0; i < 16; ++i) {
    for (int64_t j = 0; j < 24; ++j) EXPECT_NEAR(get(often.c, i, j), get(never.c, i, j), 1e-4 * std::abs(get(never.c, i, j)) + 1e-4);
  }
  EXPECT_EQ(read_tuned(file.path(), this_device()).size(), 1U);
  const int64_t before = lt_record.heuristics;
  Matmul later(nullptr, false, policy);
  add(later, often);
  EXPECT_EQ(lt_record.heuristics, before);  // found in the cache
}

TEST(Tuning, KeepsTheFastestInThisObject) {
  Matmul matmul(nullptr, false);
  const Product p(16, 24, 32, DType::bf16, DType::f32);
  p.run(matmul);
  ASSERT_EQ(lt_record.reduction, CUBLASLT_REDUCTION_SCHEME_INPLACE);
  const MatmulOperands set{p.a, p.b, p.c};
  matmul.tune(Trans::no, Trans::no, 0, {&set, 1});
  const int64_t before = lt_record.heuristics;
  p.run(matmul);
  EXPECT_NE(lt_record.reduction, CUBLASLT_REDUCTION_SCHEME_INPLACE);  // tuning considers what is reproducible
  EXPECT_EQ(lt_record.heuristics, before);
  EXPECT_TRUE(p.right());
}

// --- low-rank terms in strips ---------------------------------------------------------------------------------------------------

static_assert(low_rank_strip(0) == 0 && low_rank_strip(1) == 8 && low_rank_strip(8) == 8 && low_rank_strip(9) == 16);

// A linear of two adapted members with an unadapted one between, its operands widened by strips. What lies beyond a strip is NaN.
struct Widened {
  static constexpr int64_t kIn = 24, kOut[3] = {16, 8, 24}, kRank[2] = {3, 6}, kColumn[2] = {0, 24}, kAllOut = 48, kAllRank = 9, kStrip = 16;
  int64_t t;
  Held x, w, dy;                    // whole buffers
  Held apart_u, apart_b[2], apart_v, apart_a;  // the same terms elsewhere
  Widened(int64_t rows, DType type)
      : t(rows),
        x(poisoned(rows, kIn + kStrip + 8), type),
        w(poisoned(kAllOut + kStrip, kIn + kStrip + 8), type),
        dy(poisoned(rows, kAllOut + kStrip + 8), type),
        apart_u(drawn_matrix(4, rows, kAllRank, type), type, 7),
        apart_b{{drawn_matrix(5, kOut[0], kRank[0], type), type}, {drawn_matrix(6, kOut[2], kRank[1], type), type}},
        apart_v(drawn_matrix(7, rows, kAllRank, type), type, 7),
        apart_a(drawn_matrix(8, kAllRank, kIn, type), type) {
    fill(Tensor(x).columns(0, kIn), drawn_matrix(1, rows, kIn, type));
    fill(Tensor(x).columns(kIn, kStrip), Doubles(rows, kStrip));
    fill(u(), apart_u.values());
    fill(Tensor(w).rows_from(0, kAllOut).columns(kIn, kStrip), Doubles(kAllOut, kStrip));
    fill(Tensor(w).rows_from(kAllOut, kStrip).columns(0, kIn), Doubles(kStrip, kIn));
    fill(weight(), drawn_matrix(2, kAllOut, kIn, type));
    for (int i : {0, 1}) fill(b(i), apart_b[i].values());
    fill(a(), apart_a.values());
    fill(Tensor(dy).columns(0, kAllOut), drawn_matrix(3, rows, kAllOut, type));
    fill(Tensor(dy).columns(kAllOut, kStrip), Doubles(rows, kStrip));
    fill(v(), apart_v.values());
  }
  static Doubles poisoned(int64_t rows, int64_t cols) {
    Doubles m(rows, cols);
    for (double& value : m.values) value = std::nan("");
    return m;
  }
  static void fill(Tensor t, const Doubles& values) {
    for (int64_t i = 0; i < t.rows; ++i) {
      for (int64_t j = 0; j < t.cols; ++j) set(t, i, j, values(i, j));
    }
  }
  Tensor input() const { return Tensor(x).columns(0, kIn); }
  Tensor weight() const { return Tensor(w).rows_from(0, kAllOut).columns(0, kIn); }
  Tensor gradient() const { return Tensor(dy).columns(0, kAllOut); }
  Tensor u() const { return Tensor(x).columns(kIn, kAllRank); }
  Tensor v() const { return Tensor(dy).columns(kAllOut, kAllRank); }
  Tensor a() const { return Tensor(w).rows_from(kAllOut, kAllRank).columns(0, kIn); }
  Tensor b(int i) const { return Tensor(w).rows_from(kColumn[i], kOut[2 * i]).columns(kIn + (i == 0 ? 0 : kRank[0]), kRank[i]); }
  std::vector<LowRank> terms() const { return {{u().columns(0, kRank[0]), b(0), kColumn[0]}, {u().columns(kRank[0], kRank[1]), b(1), kColumn[1]}}; }
  std::vector<LowRank> terms_apart() const {
    const Tensor all = apart_u;
    return {{all.columns(0, kRank[0]), apart_b[0], kColumn[0]}, {all.columns(kRank[0], kRank[1]), apart_b[1], kColumn[1]}};
  }
  Matrix<Bounded> expected(const Doubles& old) const {
    std::vector<LowRankTerm<Bounded>> low;
    for (const LowRank& term : terms()) low.push_back({bounded(values_of(term.u)), bounded(values_of(term.b)), term.column});
    return reference::linear(bounded(values_of(input())), bounded(values_of(weight())), low, bounded(old));
  }
  Matrix<Bounded> expected_dx() const {
    return reference::linear_dx(bounded(values_of(gradient())), bounded(values_of(weight())), bounded(values_of(v())), bounded(values_of(a())));
  }
};

TEST(Augmented, ForwardIsOneProductAndEqualsTheTermsApart) {
  CudaBackend backend({});
  for (const DType type : kFloats) {
    for (const DType out : kFloats) {
      for (const int64_t rows : {1, 3, 40}) {
        for (const bool accumulate : {false, true}) {
          SCOPED_TRACE(fmt::format("{} to {} T {} {}", name_of(type), name_of(out), rows, accumulate));
          const Widened at(rows, type);
          const Doubles old = drawn_matrix(9, rows, Widened::kAllOut, out);
          const Held fused(old, out, 3), apart(old, out, 3);
          const auto& path = backend.linear_paths().forward;
          const int64_t before = path.count({24, 48}) != 0 ? path.at({24, 48}).fused : 0;
          backend.linear(at.input(), at.weight(), at.terms(), accumulate, fused);
          EXPECT_EQ(path.at({24, 48}).fused, before + 1);
          backend.linear(at.input(), at.weight(), at.terms_apart(), accumulate, apart);
          EXPECT_EQ(path.at({24, 48}).fused, before + 1);
          const auto expected = at.expected(accumulate ? old : Doubles(rows, Widened::kAllOut));
          EXPECT_TRUE(as_expected(fused, expected));
          EXPECT_TRUE(as_expected(apart, expected));
        }
      }
    }
  }
}

TEST(Augmented, BackwardIsOneProductAndEqualsTheTermsApart) {
  CudaBackend backend({});
  for (const DType type : kFloats) {
    for (const DType out : kFloats) {
      for (const int64_t rows : {1, 40}) {
        SCOPED_TRACE(fmt::format("{} to {} T {}", name_of(type), name_of(out), rows));
        const Widened at(rows, type);
        const Held fused(rows, Widened::kIn, out, 3), apart(rows, Widened::kIn, out, 3);
        const auto& path = backend.linear_paths().backward;
        const int64_t before = path.count({24, 48}) != 0 ? path.at({24, 48}).fused : 0;
        backend.linear_dx(at.gradient(), at.weight(), at.v(), at.a(), fused);
        EXPECT_EQ(path.at({24, 48}).fused, before + 1);
        backend.linear_dx(at.gradient(), at.weight(), at.apart_v, at.apart_a, apart);
        EXPECT_EQ(path.at({24, 48}).fused, before + 1);
        EXPECT_TRUE(as_expected(fused, at.expected_dx()));
        EXPECT_TRUE(as_expected(apart, at.expected_dx()));
      }
    }
  }
}

TEST(Augmented, OnlyWhatLiesInItsPlaceIsTaken) {
  const Widened at(5, DType::bf16);
  const auto forward = [&](const std::vector<LowRank>& terms) { return augmented_forward(at.input(), at.weight(), terms).possible; };
  const Augmented wide = augmented_forward(at.input(), at.weight(), at.terms());
  ASSERT_TRUE(wide.possible);
  EXPECT_EQ(wide.x.cols, 24 + 16);
  EXPECT_EQ(wide.w.cols, 24 + 16);
  EXPECT_EQ(wide.w.rows, 48);
  std::vector<LowRank> terms = at.terms();
  EXPECT_TRUE(forward({terms[0]}));
  EXPECT_FALSE(forward({terms[1]}));            // a gap in the rank columns
  EXPECT_FALSE(forward({terms[1], terms[0]}));  // another order
  EXPECT_FALSE(forward(at.terms_apart()));
  EXPECT_FALSE(forward({terms[0], at.terms_apart()[1]}));
  terms[1].column += 1;  // b of other outputs
  EXPECT_FALSE(forward(terms));
  terms = at.terms();
  terms[1].b.dtype = DType::f32;
  EXPECT_FALSE(forward(terms));
  terms = at.terms();
  terms[0].u.pitch += 1;
  EXPECT_FALSE(forward(terms));
  Tensor narrow = at.input();  // a buffer without room for what rounds the rank up
  narrow.pitch = 24 + 9;
  std::vector<LowRank> tight = at.terms();
  for (LowRank& term : tight) term.u.pitch = narrow.pitch;
  EXPECT_FALSE(augmented_forward(narrow, at.weight(), tight).possible);

  const Augmented plain = augmented_forward(at.input(), at.weight(), {});
  EXPECT_TRUE(plain.possible && plain.x.cols == 24 && plain.w.cols == 24);

  const auto backward = [&](Tensor v, Tensor a) { return augmented_backward(at.gradient(), at.weight(), v, a); };
  EXPECT_EQ(backward(at.v(), at.a()).x.cols, 48 + 16);
  EXPECT_EQ(backward(at.v(), at.a()).w.rows, 48 + 16);
  EXPECT_FALSE(backward(at.apart_v, at.a()).possible);
  EXPECT_FALSE(backward(at.v(), at.apart_a).possible);
  EXPECT_FALSE(backward(at.v().columns(1, 8), at.a().rows_from(1, 8)).possible);
  EXPECT_FALSE(backward(at.v().columns(0, 8), at.a()).possible);
  EXPECT_TRUE(backward({}, {}).possible);
  EXPECT_EQ(backward({}, {}).w.rows, 48);
}

// --- a few rows -----------------------------------------------------------------------------------------------------------------

TEST(FewRows, AreRightInAnyNumberAtAnyAlignment) {
  for (const DType type : kFloats) {
    for (const DType out : kFloats) {
      for (const int64_t in : {1, 8, 75, 264, 1000}) {
        for (const int64_t outputs : {1, 4, 37}) {
          for (int64_t rows = 1; rows <= kGemvRows; ++rows) {
            SCOPED_TRACE(fmt::format("{} to {} T {} in {} out {}", name_of(type), name_of(out), rows, in, outputs));
            const Held x(drawn_matrix(1, rows, in, type), type), w(drawn_matrix(2, outputs, in, type), type);
            const Doubles old = drawn_matrix(3, rows, outputs, out);
            const Held fresh(Widened::poisoned(rows, outputs), out, 3), added(old, out, 3);
            gemv(nullptr, 0.5f, x, w, 0, fresh);
            gemv(nullptr, 0.5f, x, w, 2, added);
            EXPECT_TRUE(as_expected(fresh, product(Trans::no, Trans::yes, 0.5, bounded(x.values()), bounded(w.values()), 0, bounded(old))));
            EXPECT_TRUE(as_expected(added, product(Trans::no, Trans::yes, 0.5, bounded(x.values()), bounded(w.values()), 2, bounded(old))));
          }
        }
      }
    }
  }
}

// A row's bits depend on the row and the weight: not on its neighbours, their number, or where they lie.
TEST(FewRows, ARowDoesNotDependOnTheOthers) {
  for (const DType type : kFloats) {
    const int64_t in = 520, outputs = 19;
    const Doubles rows = drawn_matrix(1, kGemvRows, in, type), weights = drawn_matrix(2, outputs, in, type);
    const Held x(rows, type), w(weights, type), x_unaligned(rows, type, 1), w_unaligned(weights, type, 3), all(kGemvRows, outputs, DType::f32);
    gemv(nullptr, 1, x, w, 0, all);
    for (int64_t count = 1; count <= kGemvRows; ++count) {
      for (int64_t first = 0; first + count <= kGemvRows; ++first) {
        const Held some(count, outputs, DType::f32), unaligned(count, outputs, DType::f32);
        gemv(nullptr, 1, Tensor(x).rows_from(first, count), w, 0, some);
        gemv(nullptr, 1, Tensor(x_unaligned).rows_from(first, count), w_unaligned, 0, unaligned);
        EXPECT_TRUE(exactly(some, values_of(Tensor(all).rows_from(first, count)))) << count << " from " << first;
        EXPECT_TRUE(exactly(unaligned, values_of(Tensor(all).rows_from(first, count)))) << count << " from " << first;
      }
    }
  }
}

// A matrix whose last element lies at the end of the memory that may be read.
class AtTheEdge {
 public:
  AtTheEdge(const Doubles& values, DType type) {
    const int64_t bytes = values.rows * values.cols * size_of(type), page = 4096;
    readable_ = static_cast<size_t>((bytes + page - 1) / page * page);
    block_ = static_cast<char*>(mmap(nullptr, readable_ + page, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
    mprotect(block_ + readable_, page, PROT_NONE);
    tensor_ = matrix(block_ + readable_ - bytes, values.rows, values.cols, type);
    Widened::fill(tensor_, values);
  }
  ~AtTheEdge() { munmap(block_, readable_ + 4096); }
  AtTheEdge(const AtTheEdge&) = delete;
  AtTheEdge& operator=(const AtTheEdge&) = delete;
  operator Tensor() const { return tensor_; }

 private:
  char* block_ = nullptr;
  size_t readable_ = 0;
  Tensor tensor_;
};

TEST(FewRows, NothingBeyondTheOperandsIsRead) {
  for (const DType type : kFloats) {
    for (const int64_t in : {75, 64}) {
      for (const int64_t rows : {1, 3, 5}) {
        const AtTheEdge x(drawn_matrix(1, rows, in, type), type), w(drawn_matrix(2, 37, in, type), type);
        const Held y(rows, 37, DType::f32);
        gemv(nullptr, 1, x, w, 0, y);
        EXPECT_TRUE(as_expected(y, product(Trans::no, Trans::yes, 1, bounded(values_of(x)), bounded(values_of(w)), 0, bounded(Doubles(rows, 37)))));
      }
    }
  }
}

// In strips and apart: decoding streams the weight and asks cuBLASLt for nothing.
TEST(FewRows, DecodingTakesTheStreamingKernel) {
  CudaBackend backend({});
  const Widened four(4, DType::bf16), many(kGemvRows + 1, DType::bf16);
  const Held y(4, Widened::kAllOut, DType::bf16), u(4, 9, DType::bf16), more(kGemvRows + 1, Widened::kAllOut, DType::bf16);
  const int64_t before = lt_record.products;
  backend.linear(four.input(), four.weight(), four.terms(), true, y);
  backend.linear(four.input(), four.weight(), four.terms_apart(), false, y);
  backend.gemm(Trans::no, Trans::yes, 2, four.input(), four.a(), 0, u);
  EXPECT_EQ(lt_record.products, before);
  backend.linear(many.input(), many.weight(), many.terms(), false, more);
  EXPECT_EQ(lt_record.products, before + 1);
}

// --- the backend's own memory ---------------------------------------------------------------------------------------------------

TEST(Panels, AreTakenOnlyByWhatNoStepAsksFor) {
  CudaBackend backend({});
  const int64_t before = backend.workspace_bytes();
  const Widened at(40, DType::bf16);
  const Held y(40, Widened::kAllOut, DType::bf16), dx(40, Widened::kIn, DType::f32), da(9, Widened::kIn, DType::f32);
  backend.linear(at.input(), at.weight(), at.terms(), true, y);
  backend.linear_dx(at.gradient(), at.weight(), at.v(), at.a(), dx);
  backend.gemm(Trans::yes, Trans::no, 1, at.v(), at.input(), 1, da);
  EXPECT_EQ(backend.workspace_bytes(), before);
  backend.linear(at.input(), at.weight(), at.terms_apart(), true, y);
  EXPECT_EQ(backend.workspace_bytes(), before + 2 * Matmul::kPanelFloats * 4);
}

// Sizes at which the widened operand and the rounded result are each cut into several panels.
TEST(Panels, JoinWithoutSeams) {
  CudaBackend backend({});
  const int64_t long_side = Matmul::kPanelFloats / 1024 + 3;
  struct Case {
    Trans ta, tb;
    int64_t m, n, k;
    bool narrow_left;
  };
  const Case cases[] = {{Trans::no, Trans::no, long_side, 2, 1024, true},  {Trans::yes, Trans::no, 1024, 2, long_side, true},
                        {Trans::no, Trans::no, 2, 1024, long_side, false}, {Trans::no, Trans::yes, 2, long_side, 1024, false},
                        {Trans::no, Trans::no, long_side, 1024, 2, true}};
  for (const Case& c : cases) {
    for (const DType out : kFloats) {
      SCOPED_TRACE(fmt::format("{}x{}x{} to {}", c.m, c.n, c.k, name_of(out)));
      const DType da = c.narrow_left ? DType::bf16 : DType::f32, db = c.narrow_left ? DType::f32 : DType::bf16;
      const Held a(c.ta == Trans::no ? drawn_matrix(1, c.m, c.k, da) : drawn_matrix(1, c.k, c.m, da), da);
      const Held b(c.tb == Trans::no ? drawn_matrix(2, c.k, c.n, db) : drawn_matrix(2, c.n, c.k, db), db);
      const Doubles old = drawn_matrix(3, c.m, c.n, out);
      const Held y(old, out);
      backend.gemm(c.ta, c.tb, 1, a, b, 1, y);
      EXPECT_TRUE(as_expected(y, product(c.ta, c.tb, 1, bounded(a.values()), bounded(b.values()), 1, bounded(old))));
    }
  }
}

}  // namespace
}  // namespace drover::cuda
