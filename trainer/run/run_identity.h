// What a run is known by: a checkpoint continues only in a run of the same identity.
#pragma once
#include <map>
#include <string>

#include "configs/recipe.h"
#include "trainer/run/checkpoint.h"

namespace drover {

// Key → value: the recipe's keys that shape the result, the model's fingerprint, and the data by its content, not by
// where it lies. Of data.validation a share counts, which takes rows out of training, and not a file; a file's content
// is noted (`validation`, empty without), so that another one can be said.
std::map<std::string, std::string> run_identity(const Recipe& recipe, const std::string& model, const std::string& data,
                                                const std::string& validation = {});

// bad_recipe listing what differs between a checkpoint's run and this one, and the two ways on.
void check_same_run(const Checkpoint& checkpoint, const std::map<std::string, std::string>& now, const fs::path& run);

// Whether the run was validated with the content of another file, or with none, before.
bool validates_otherwise(const Checkpoint& checkpoint, const std::map<std::string, std::string>& now);

// The same for using a checkpoint's adapter under a recipe: only the adapter and the model count.
void check_same_adapter(const Checkpoint& checkpoint, const Recipe& recipe, const std::string& model);

}  // namespace drover
