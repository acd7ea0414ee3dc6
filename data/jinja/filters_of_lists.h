// Filters of lists and mappings.
#pragma once
#include "data/jinja/library.h"

namespace drover::jinja {

const Filter* find_list_filter(std::string_view name);  // null: there is none

}  // namespace drover::jinja
