// What can be asked for by name: the base and its adapters. An entry never changes; a name may get another one, and
// requests that run keep theirs, so that what they use stays attached until the last of them has ended. Any thread.
#pragma once
#include <ctime>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <vector>

#include "kernels/base/file.h"
#include "model/context.h"
#include "trainer/generation/manner.h"

namespace drover {

struct ServedModel {
  std::string id;
  fs::path root;        // its directory
  std::string parent;   // of an adapter: the base's id
  std::string weights;  // of an adapter: its content's hash (Request::weights)
  int slot = kBaseModel;
  Manner manner;
  std::time_t created = 0;
  std::function<void()> released = {};  // called when nobody holds it any more

  ServedModel() = default;
  ServedModel(const ServedModel&) = delete;
  ServedModel& operator=(const ServedModel&) = delete;
  ~ServedModel() {
    if (released) released();
  }
};
using ServedModelPtr = std::shared_ptr<const ServedModel>;

inline constexpr const char* kModelName =
    "1 to 64 letters, digits, '.', '_', '-' and '@', of which the first is a letter or a digit";
bool is_model_name(const std::string& name);

class ServedModels {
 public:
  explicit ServedModels(ServedModelPtr base) : base_(std::move(base)) {}

  const ServedModelPtr& base() const { return base_; }
  ServedModelPtr find(const std::string& id) const;  // null where there is none; "" is the base
  std::vector<ServedModelPtr> list() const;          // the base first, adapters by name
  void put(ServedModelPtr adapter);                  // in place of the one of its name, if any
  bool remove(const std::string& id);                // false: there is none, or it is the base

 private:
  ServedModelPtr base_;
  mutable std::mutex mutex_;
  std::map<std::string, ServedModelPtr> adapters_;
};

}  // namespace drover
