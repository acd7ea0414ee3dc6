#include "launch/curve.h"

#include <gmock/gmock.h>

#include <limits>

namespace drover {
namespace {

using Lines = std::vector<std::string>;

// The dots of a line of Braille patterns, as rows of '#' and '.'; a blank has none.
Lines dots_of(const Lines& lines) {
  constexpr int kBits[4][2] = {{0, 3}, {1, 4}, {2, 5}, {6, 7}};
  Lines dots;
  for (const std::string& line : lines) {
    std::vector<unsigned> patterns;
    for (size_t i = 0; i < line.size();) {
      const bool blank = line[i] == ' ';
      const auto byte = [&](size_t j) { return static_cast<unsigned>(static_cast<unsigned char>(line[i + j])) & 0x3F; };
      patterns.push_back(blank ? 0 : (byte(1) << 6 | byte(2)) & 0xFF);
      i += blank ? 1 : 3;
    }
    for (const auto& row : kBits) {
      std::string& text = dots.emplace_back();
      for (const unsigned pattern : patterns)
        for (const int bit : row) text += pattern >> bit & 1 ? '#' : '.';
    }
  }
  return dots;
}

TEST(Curve, JoinsItsPoints) {
  const CurvePoint points[] = {{1, 8}, {8, 1}};
  const CurveRange range = range_of(points, {});
  EXPECT_EQ(dots_of(draw_curve(points, {}, range, 4, 2)),
            (Lines{"#.......", ".#......", "..#.....", "...#....", "....#...", ".....#..", "......#.", ".......#"}));
  EXPECT_EQ(draw_curve(points, {}, range, 2, 1), (Lines{"⠑⢄"}));
}

TEST(Curve, SteepPartsHaveNoHoles) {
  const CurvePoint points[] = {{0, 0}, {1, 3}, {2, 0}, {3, 3}};
  EXPECT_EQ(dots_of(draw_curve(points, {}, range_of(points, {}), 2, 1)), (Lines{".#.#", "###.", "###.", "#.#."}));
}

TEST(Curve, DrawsTheMeanOfManyPoints) {
  std::vector<CurvePoint> points;
  for (int i = 0; i < 4000; ++i) points.push_back({i / 4000.0, i % 2 == 0 ? 1.0 : 3.0});
  const CurveRange range{0, 1, 0, 3.8};  // 2 lies in the tenth row of dots
  const Lines dots = dots_of(draw_curve(points, {}, range, 10, 5));
  for (size_t i = 0; i < dots.size(); ++i) EXPECT_EQ(dots[i], std::string(20, i == 9 ? '#' : '.')) << i;
}

TEST(Curve, MarksStandOnIt) {
  const CurvePoint points[] = {{0, 0}, {1, 0}}, marks[] = {{1, 1}};
  EXPECT_EQ(draw_curve(points, marks, range_of(points, marks), 3, 2), (Lines{"  ●", "⣀⣀⣀"}));
}

TEST(Curve, LeavesOutWhatCannotBeDrawn) {
  constexpr double kNone = std::numeric_limits<double>::quiet_NaN(), kFar = std::numeric_limits<double>::infinity();
  const CurvePoint points[] = {{0, 1}, {1, kNone}, {2, kFar}, {3, 1}}, marks[] = {{1, kNone}};
  const CurveRange range = range_of(points, marks);
  EXPECT_EQ(range.x1, 3);
  EXPECT_EQ(range.y0, 1);
  EXPECT_EQ(range.y1, 1);
  EXPECT_EQ(draw_curve(points, marks, range, 2, 1), (Lines{"⠤⠤"}));  // the one value lies in the middle
  EXPECT_EQ(draw_curve({}, {}, range_of({}, {}), 2, 1), (Lines{"  "}));
}

}  // namespace
}  // namespace drover
