// What an unknown key may have meant: another program's name for one of ours, or the nearest of ours.
#pragma once
#include <set>
#include <string>

namespace drover {

// "lora_rank is unknown; it is LLaMA-Factory's and torchtune's name for lora.r". `known`: every key of a recipe.
std::string about_unknown_key(const std::string& key, const std::set<std::string>& known);

}  // namespace drover
