// A curve in characters of text: Braille patterns, of which each has 2 × 4 dots.
#pragma once
#include <cstdint>
#include <span>
#include <string>
#include <vector>

namespace drover {

struct CurvePoint {
  double x = 0, y = 0;
};

// Both ends of both axes.
struct CurveRange {
  double x0 = 0, x1 = 0, y0 = 0, y1 = 0;
};
CurveRange range_of(std::span<const CurvePoint> points, std::span<const CurvePoint> marks);

// `rows` lines of `columns` characters: the points, of rising x, joined by lines, and a ● for each mark. Of points in
// one column of dots the mean of y is drawn. Points that are not finite, or out of range, are left out.
std::vector<std::string> draw_curve(std::span<const CurvePoint> points, std::span<const CurvePoint> marks,
                                    const CurveRange& range, int64_t columns, int64_t rows);

}  // namespace drover
