// A text, trained as it is.
#include <array>

#include "data/formats/fields.h"
#include "data/formats/formats.h"

namespace drover {

namespace {

constexpr std::array<const char*, 1> kFields{"text"};

void read_text(const OrderedJson& j, Row& row) {
  if (!j["text"].is_string()) wrong("\"text\" must be a string");
  row.text = j["text"].get<std::string>();
}

}  // namespace

const RowFormatSpec kTextFormat = {RowFormat::text, kFields, kFields, read_text};

}  // namespace drover
