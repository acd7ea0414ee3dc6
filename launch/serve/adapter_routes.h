// Adapters that come and go while a server runs. Off unless it was started with --allow-adapter-changes.
#pragma once
#include "launch/serve/serving.h"

namespace drover {

// On the request thread; answers when all ranks have the adapter.
void load_adapter_route(Serving& serving, Call call);
HttpResponse unload_adapter(Serving& serving, const HttpRequest& request);

// The directory that a client names, below the root; ApiError where it is not there or leads out of it.
fs::path below_root(const fs::path& root, const std::string& path);

}  // namespace drover
