// What an unknown key may have meant: another program's name for one of ours, or the nearest of ours.
#pragma once
#include <set>
#include <string>
#include <vector>

namespace drover {

// "lora_rank is unknown; it is LLaMA-Factory's and torchtune's name for lora.r". `known`: every key of a recipe.
std::string about_unknown_key(const std::string& key, const std::set<std::string>& known);

// "; did you mean q_proj?", or nothing where none of the names is near.
std::string did_you_mean(const std::string& name, const std::vector<std::string>& allowed);

}  // namespace drover
