// Control tokens that a base model has and never trained, as Llama 3's bases have those of its chat template.
#pragma once
#include <string>
#include <vector>

#include "data/token_store.h"
#include "data/tokenizer.h"
#include "model/files/model_directory.h"

namespace drover {

// Those that the data hold and whose embedding is zero (its numbers are at most 1e-16), or equal to that of another
// control token. Their spellings, by id. Reads the embeddings of control tokens.
std::vector<std::string> untrained_tokens(const TokenStore& data, const Tokenizer& tokenizer, ModelDirectory& model);

std::string untrained_warning(const std::vector<std::string>& tokens);  // names them, and what to do

}  // namespace drover
