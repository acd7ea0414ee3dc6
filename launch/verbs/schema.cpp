// drover schema: the recipe's JSON Schema, for editors.
#include "configs/json_schema.h"
#include "launch/verbs/verb.h"

namespace drover {

Verb schema_verb(CLI::App& app) {
  CLI::App* options =
      app.add_subcommand("schema", "the recipe's JSON Schema, for editors that check and complete YAML");
  options->footer(
      "example: drover schema > recipe.schema.json\n"
      "A recipe names it for its editor in its first line: # yaml-language-server: $schema=recipe.schema.json");
  return {.options = options,
          .run = [](const Process&) { return Exit::done; },
          .answer = [] { return std::optional(recipe_schema()); }};
}

}  // namespace drover
