// Models that Hugging Face's tools have downloaded on this machine. Nothing is fetched here.
#pragma once
#include <optional>
#include <string>

#include "kernels/base/file.h"

namespace drover {

// $HF_HUB_CACHE, else $HF_HOME/hub, else $XDG_CACHE_HOME/huggingface/hub, else ~/.cache/huggingface/hub.
fs::path hub_cache();

// `organisation/name` in letters, digits, '-', '_' and '.'.
bool is_hub_name(const std::string& name);

// Where the cache holds `organisation/name`: the snapshot that refs/main names, else the only one. None for another
// kind of name, for one that is a file or directory here, and where the cache has no such snapshot.
// Layout: huggingface_hub's documentation, "Understand caching".
std::optional<std::string> cached_model(const std::string& name);

}  // namespace drover
