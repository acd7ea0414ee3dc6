// The JSON header of a safetensors file, read event by event so that a hostile one costs no memory.
#pragma once
#include <map>
#include <string>
#include <vector>

#include "model/files/stored_type.h"

namespace drover {

struct HeaderEntry {
  std::string name;
  StoredType dtype = StoredType::f32;
  std::vector<int64_t> shape;
  uint64_t begin = 0, end = 0;  // offsets in the data
};

struct SafetensorsHeader {
  std::vector<HeaderEntry> entries;  // as they stand in the text
  std::map<std::string, std::string> metadata;
};

SafetensorsHeader parse_safetensors_header(std::string_view text,
                                           const std::string& where);  // bad_data with `where` and the reason

}  // namespace drover
