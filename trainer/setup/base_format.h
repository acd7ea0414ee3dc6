// What a run holds its frozen linears in, which is what an adapter was trained over: comparison.json of its directory
// keeps it, so that loading it over another base does not go unnoticed.
#pragma once
#include <optional>
#include <string>

#include "configs/recipe.h"
#include "trainer/engine/replica.h"

namespace drover {

// "plain numbers" where none is quantised; else "nf4", "fp8 in blocks of 128 × 128", "fp8 with a scale a row and plain
// numbers", …
std::string base_format(const ReplicaSettings& settings);

struct OtherBase {
  std::string trained, here;
};
// Where the adapter's comparison.json names another format than a model of this recipe has. A warning where it is
// broken.
std::optional<OtherBase> other_base(const fs::path& adapter, const Recipe& recipe);
std::string said_of(const fs::path& adapter, const OtherBase& other);  // "X was trained over …, and this one is of …"

}  // namespace drover
