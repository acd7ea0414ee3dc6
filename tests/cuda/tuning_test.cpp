// The cache of tuned algorithms: its file, what of it is taken, and when a product is tuned.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <filesystem>

#include "kernels/base/error.h"
#include "kernels/base/file.h"
#include "tests/base/variable.h"
#include "tests/cuda/matmul_cases.h"

namespace drover::cuda {
namespace {

using testing::HasSubstr;

// A file for the tuned cache, found by the backend while this lives.
class TunedFile {
 public:
  TunedFile()
      : directory_(std::filesystem::temp_directory_path() / fmt::format("drover-matmul-{}", getpid())),
        named_("DROVER_MATMUL_CACHE", path().string()) {
    std::filesystem::remove_all(directory_);
  }
  ~TunedFile() { std::filesystem::remove_all(directory_); }
  std::filesystem::path path() const { return directory_ / "deep" / "matmul-algorithms"; }

 private:
  std::filesystem::path directory_;
  Variable named_;
};

TunedAlgorithm made_up(unsigned char seed, double us) {
  TunedAlgorithm t;
  for (size_t i = 0; i < sizeof(t.algorithm); ++i)
    reinterpret_cast<unsigned char*>(&t.algorithm)[i] = static_cast<unsigned char>(seed + 37 * i);
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
  EXPECT_THAT(warnings([&] { EXPECT_TRUE(read_tuned(file.path(), kHere).empty()); }),
              HasSubstr("tuned algorithms are not used"));
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
  EXPECT_EQ(chosen(numbered(emulation::lt_split), true, ""),
            emulation::lt_plain);  // the cache may change between two runs, and bits must not
  EXPECT_EQ(chosen(numbered(emulation::lt_in_place), false, ""), emulation::lt_in_place);
  EXPECT_EQ(chosen(numbered(emulation::lt_workspace_too_large), false, refused), emulation::lt_in_place);
  EXPECT_EQ(chosen(made_up(9, 1), false, refused), emulation::lt_in_place);  // no algorithm of this library
}

// Into a c that is added to, several times, against a backend that never tunes.
TEST(Tuning, WhatComesAgainAndAgainIsTunedOnceAndKept) {
  const TunedFile file;
  const TuningPolicy policy{.least_multiplications = 16 * 24 * 32, .after_uses = 3};
  const Product often(16, 24, 32, DType::bf16, DType::f32), never(16, 24, 32, DType::bf16, DType::f32),
      small(16, 24, 31, DType::bf16, DType::f32);
  Matmul tuning(nullptr, false, policy), plain(nullptr, true, policy);
  const auto add = [](Matmul& matmul, const Product& p) { matmul(Trans::no, Trans::no, 1, p.a, p.b, 1, p.c); };
  for (const Product* p : {&often, &never}) p->run(plain);
  small.run(tuning);
  const std::string said = warnings([&] {
    for (int i = 0; i < 8; ++i) {
      add(tuning, often);
      add(tuning, small);
    }
  });
  for (int i = 0; i < 8; ++i) add(plain, never);
  EXPECT_THAT(said, HasSubstr("16x24x32"));
  EXPECT_EQ(std::count(said.begin(), said.end(), '\n'), 1) << said;
  for (int64_t i = 0; i < 16; ++i) {
    for (int64_t j = 0; j < 24; ++j)
      EXPECT_NEAR(get(often.c, i, j), get(never.c, i, j), 1e-4 * std::abs(get(never.c, i, j)) + 1e-4);
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

}  // namespace
}  // namespace drover::cuda
