// The page that a browser gets: one file without anything from elsewhere.
#pragma once
#include "launch/http/server.h"

namespace drover {

// With a Content-Security-Policy that lets its one script and its one style element run, and nothing else.
HttpResponse page_response();

}  // namespace drover
