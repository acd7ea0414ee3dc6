// Numbers to places of a picture, and where an axis has its lines.
#pragma once
#include <string>
#include <vector>

namespace drover {

struct Extent {
  double least = 0, most = 0;
  bool empty = true;
  void add(double value);  // holes are passed over
};

class ChartAxis {
 public:
  // `extent` lies from place `begin` to place `end`, which may be smaller. An extent of one value gets room around it.
  // Logarithmic only where all of it is above 0.
  ChartAxis(Extent extent, double begin, double end, bool logarithmic = false);
  double place(double value) const;
  // Round values in the extent, about `about` of them, ascending.
  std::vector<double> ticks(int about) const;

 private:
  double least_, most_, begin_, end_;
  bool logarithmic_;
};

}  // namespace drover
