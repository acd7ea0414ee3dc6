// Fields of a row: what every format reads alike, and the words for what is wrong.
#pragma once
#include <initializer_list>
#include <span>
#include <string>

#include "data/formats/row.h"

namespace drover {

// Thrown as std::invalid_argument: whoever reads the file knows the place.
[[noreturn]] void wrong(const std::string& what);

bool has(const OrderedJson& object, const char* field);             // and it is not null
std::string text_of(const OrderedJson& object, const char* field);  // "" where it is absent or null
// Refuses fields that would change what a model is given and cannot be honoured. Empty ones say nothing.
void refuse_unsupported(const OrderedJson& object, std::initializer_list<const char*> fields, const char* instead);
double weight_of(const OrderedJson& value);  // 0 to 10

// weight, train and loss of the row; what no format can honour is refused; what is in neither list is noted as ignored.
void read_common(const OrderedJson& row, std::span<const char* const> fields, Row& out);
// "tools", a list or a string that holds one; "system", for the first message. Once the messages are there.
void read_tools_and_system(const OrderedJson& row, Row& out);

}  // namespace drover
