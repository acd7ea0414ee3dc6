// The recipe's JSON Schema (draft 7), for editors that check YAML while it is written: every key with its help, its
// default and what may stand there. What only two keys together, the model or the mesh show is the reader's to say.
#pragma once
#include <string>

namespace drover {

std::string recipe_schema();

}  // namespace drover
