#include "launch/serve/load_adapter.h"

#include "kernels/base/log.h"
#include "trainer/export/adapter_effect.h"
#include "trainer/setup/base_format.h"

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

namespace {

// The names one after another: the second one finds the adapter attached.
void attach(Serving& serving, std::vector<std::shared_ptr<ServedModel>> models,
            std::function<void(const std::optional<Error>&)> then) {
  if (models.empty()) return then(std::nullopt);
  const fs::path directory = models.front()->root;
  serving.loop.attach(directory, [&serving, models, then](const auto& outcome) mutable {
    const std::shared_ptr<ServedModel> model = models.front();
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
    models.erase(models.begin());
    attach(serving, std::move(models), std::move(then));
  });
}

}  // namespace

void load_adapter(Serving& serving, const std::vector<std::string>& names, const fs::path& directory,
                  std::function<void(const std::optional<Error>&)> then) {
  std::vector<std::shared_ptr<ServedModel>> models;
  try {
    say_effect(directory, serving.settings.recipe.model.path);
    if (const auto other = other_base(directory, serving.settings.recipe))
      log::warn("{}: its answers may differ; a server that runs does not measure by how much",
                said_of(directory, *other));
    for (const std::string& name : names) models.push_back(served_adapter(serving, name, directory));
  } catch (const Error& error) {
    log::warn("adapter {} was not loaded: {}", names.front(), error.what());
    return then(error);
  } catch (const fs::filesystem_error& error) {
    return then(Error(Fault::io, error.what()));
  }
  attach(serving, std::move(models), std::move(then));
}

}  // namespace drover
