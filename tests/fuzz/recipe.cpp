// A recipe and, behind a NUL, one override a line. What is taken is printed, and reads back as the same.
#include "configs/recipe.h"

#include <sstream>

#include "tests/fuzz/fuzz.h"

using namespace drover;

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const auto [recipe, rest] = fuzz::two_parts(data, size);
  const fs::path path = fuzz::written("recipe.yaml", recipe);
  std::vector<std::string> overrides;
  std::istringstream lines(rest);
  for (std::string line; std::getline(lines, line);) overrides.push_back(line);
  return fuzz::accept({Fault::bad_recipe}, [&] {
    const ReadRecipe read = read_recipe(path, overrides);
    const ReadRecipe again = read_recipe(fuzz::written("resolved.yaml", resolved_recipe(read)), {});
    fuzz::holds(again.recipe == read.recipe, "a printed recipe reads back");
    fuzz::holds(identity(again.recipe) == identity(read.recipe), "a printed recipe is the same run");
    with_absolute_paths(read);
    check_mesh(read.recipe, 8);
  });
}
