#include "launch/serve/load_adapter.h"

#include "kernels/base/log.h"
#include "trainer/export/adapter_effect.h"

namespace drover {

std::shared_ptr<ServedModel> served_adapter(const Serving& serving, const std::string& name,
                                            const fs::path& directory) {
  auto model = std::make_shared<ServedModel>();
  model->id = name;
  model->root = directory;
  model->parent = serving.models.base()->id;
  model->manner = manner_of_adapter({serving.settings.recipe, serving.config, serving.tokenizer}, name, directory);
  model->created = std::time(nullptr);
  return model;
}

void load_adapter(Serving& serving, const std::string& name, const fs::path& directory,
                  std::function<void(const std::optional<Error>&)> then) {
  std::shared_ptr<ServedModel> model;
  try {
    say_effect(directory, serving.settings.recipe.model.path);
    model = served_adapter(serving, name, directory);
  } catch (const Error& error) {
    return then(error);
  }
  serving.loop.attach(directory, [&serving, model, then = std::move(then)](const auto& outcome) {
    if (const auto* error = std::get_if<Error>(&outcome)) {
      log::warn("adapter {} was not loaded: {}", model->id, error->what());
      return then(*error);
    }
    const auto& attached = std::get<PassLoop::AttachedAdapter>(outcome);
    model->slot = attached.slot;
    model->weights = attached.hash;
    model->released = [&loop = serving.loop, slot = attached.slot] { loop.detach(slot); };
    serving.models.put(model);
    log::info("adapter {} is served from {}", model->id, model->root.string());
    then(std::nullopt);
  });
}

}  // namespace drover
