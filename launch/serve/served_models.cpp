#include "launch/serve/served_models.h"

#include <algorithm>
#include <ranges>

namespace drover {

bool is_model_name(const std::string& name) {
  const auto is_word = [](char c) {
    return (c >= '0' && c <= '9') || (c >= 'A' && c <= 'Z') || (c >= 'a' && c <= 'z');
  };
  const auto may_stand = [&](char c) { return is_word(c) || c == '.' || c == '_' || c == '-' || c == '@'; };
  return !name.empty() && name.size() <= 64 && is_word(name.front()) && std::ranges::all_of(name, may_stand);
}

ServedModelPtr ServedModels::find(const std::string& id) const {
  if (id.empty() || id == base_->id) return base_;
  const std::lock_guard lock(mutex_);
  const auto found = adapters_.find(id);
  return found == adapters_.end() ? nullptr : found->second;
}

std::vector<ServedModelPtr> ServedModels::list() const {
  std::vector<ServedModelPtr> models{base_};
  const std::lock_guard lock(mutex_);
  std::ranges::copy(std::views::values(adapters_), std::back_inserter(models));
  return models;
}

void ServedModels::put(ServedModelPtr adapter) {
  ServedModelPtr before;  // let go of outside the lock
  const std::lock_guard lock(mutex_);
  before = std::exchange(adapters_[adapter->id], std::move(adapter));
}

bool ServedModels::remove(const std::string& id) {
  ServedModelPtr removed;
  const std::lock_guard lock(mutex_);
  const auto found = adapters_.find(id);
  if (found == adapters_.end()) return false;
  removed = std::move(found->second);
  adapters_.erase(found);
  return true;
}

}  // namespace drover
