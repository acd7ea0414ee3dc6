#include "launch/curve.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <optional>

namespace drover {

namespace {

constexpr int64_t kDotsAcross = 2, kDotsDown = 4;
constexpr uint32_t kFirstPattern = 0x2800;                                          // U+2800, no dot
constexpr uint8_t kDot[kDotsDown][kDotsAcross] = {{0, 3}, {1, 4}, {2, 5}, {6, 7}};  // the bit of each

std::string utf8(uint32_t code) {  // of three bytes
  return {static_cast<char>(0xE0 | code >> 12), static_cast<char>(0x80 | (code >> 6 & 0x3F)),
          static_cast<char>(0x80 | (code & 0x3F))};
}

struct Dot {
  int64_t x, y;  // from the left and from the top
};

class Canvas {
 public:
  Canvas(const CurveRange& range, int64_t columns, int64_t rows)
      : range_(range),
        columns_(columns),
        width_(columns * kDotsAcross),
        height_(rows * kDotsDown),
        patterns_(static_cast<size_t>(rows), std::vector<uint32_t>(static_cast<size_t>(columns), kFirstPattern)) {}

  std::optional<Dot> dot_of(const CurvePoint& p) const {
    const double x = share(p.x, range_.x0, range_.x1), y = share(p.y, range_.y0, range_.y1);
    if (!(x >= 0 && x <= 1 && y >= 0 && y <= 1)) return std::nullopt;
    return Dot{std::llround(x * static_cast<double>(width_ - 1)),
               std::llround((1 - y) * static_cast<double>(height_ - 1))};
  }

  void join(const Dot& a, const Dot& b) {
    const int64_t steps = std::max<int64_t>({std::abs(b.x - a.x), std::abs(b.y - a.y), 1});
    for (int64_t i = 0; i <= steps; ++i) set({a.x + (b.x - a.x) * i / steps, a.y + (b.y - a.y) * i / steps});
  }

  void mark(const Dot& d) { at(d) = 0x25CF; }  // ●

  std::vector<std::string> lines() const {
    std::vector<std::string> lines;
    for (const auto& row : patterns_) {
      std::string& line = lines.emplace_back();
      for (uint32_t code : row) line += code == kFirstPattern ? " " : utf8(code);
    }
    return lines;
  }

 private:
  static double share(double value, double from, double to) {
    return to > from || !std::isfinite(value) ? (value - from) / (to - from) : 0.5;
  }
  uint32_t& at(const Dot& d) {
    return patterns_[static_cast<size_t>(d.y / kDotsDown)][static_cast<size_t>(d.x / kDotsAcross)];
  }
  void set(const Dot& d) { at(d) |= 1u << kDot[d.y % kDotsDown][d.x % kDotsAcross]; }

  CurveRange range_;
  int64_t columns_, width_, height_;
  std::vector<std::vector<uint32_t>> patterns_;
};

// A point for each column of dots that has some: the mean.
std::vector<CurvePoint> thinned(std::span<const CurvePoint> points, const Canvas& canvas) {
  std::vector<CurvePoint> means;
  int64_t column = -1, count = 0;
  for (const CurvePoint& p : points) {
    const std::optional<Dot> dot = canvas.dot_of(p);
    if (!dot) continue;
    if (dot->x != column) means.push_back({}), count = 0;
    column = dot->x;
    ++count;
    means.back().x += (p.x - means.back().x) / static_cast<double>(count);
    means.back().y += (p.y - means.back().y) / static_cast<double>(count);
  }
  return means;
}

}  // namespace

CurveRange range_of(std::span<const CurvePoint> points, std::span<const CurvePoint> marks) {
  constexpr double kFar = std::numeric_limits<double>::infinity();
  CurveRange r{kFar, -kFar, kFar, -kFar};
  for (const auto& some : {points, marks}) {
    for (const CurvePoint& p : some) {
      if (!std::isfinite(p.x) || !std::isfinite(p.y)) continue;
      r = {std::min(r.x0, p.x), std::max(r.x1, p.x), std::min(r.y0, p.y), std::max(r.y1, p.y)};
    }
  }
  return r.x0 <= r.x1 ? r : CurveRange{};
}

std::vector<std::string> draw_curve(std::span<const CurvePoint> points, std::span<const CurvePoint> marks,
                                    const CurveRange& range, int64_t columns, int64_t rows) {
  Canvas canvas(range, columns, rows);
  std::optional<Dot> last;
  for (const CurvePoint& p : thinned(points, canvas)) {
    const std::optional<Dot> dot = canvas.dot_of(p);
    if (!dot) continue;  // a mean that rounding put out of range
    canvas.join(last.value_or(*dot), *dot);
    last = dot;
  }
  for (const CurvePoint& p : marks) {
    if (const std::optional<Dot> dot = canvas.dot_of(p)) canvas.mark(*dot);
  }
  return canvas.lines();
}

}  // namespace drover
