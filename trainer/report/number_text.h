// Numbers as people read them; a hole (NaN) reads "–".
#pragma once
#include <string>

namespace drover {

std::string plain(double value);             // up to 4 digits: 0.0123, 12.3, 12300
std::string grouped(double value);           // 1 234 567
std::string bytes_text(double bytes);        // 1.50 GiB
std::string seconds_text(double seconds);    // 0.25 s, 3:20 min, 2:05 h
std::string percent_text(double share);      // 12.3 %
std::string ratio_text(double a, double b);  // a over b: 1.03 ×

}  // namespace drover
