// A turn of a dialog.
#pragma once
#include <string>

#include "kernels/base/json.h"

namespace drover {

struct Message {
  std::string role;  // system, user, assistant; what else a template knows (tool, ipython, …)
  std::string content;
  // Further fields that a template may read (tool_calls, reasoning_content, name, …), in the file's order; null
  // without. "content" stands here, as null, where the file has none or null.
  OrderedJson more = {};
  bool train = true;  // false: an assistant's turn that is not to be learnt
  bool operator==(const Message&) const = default;
};

}  // namespace drover
