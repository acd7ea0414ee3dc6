#include "launch/serve/adapter_routes.h"

#include "kernels/base/log.h"
#include "launch/openai/api_error.h"
#include "launch/openai/responses.h"
#include "launch/serve/load_adapter.h"

namespace drover {

using openai::invalid_request;

namespace {

void check_allowed(const Serving& serving) {
  if (serving.settings.adapter_changes) return;
  throw openai::ApiError(403, "invalid_request_error", "", "",
                         "adapters do not change while this server runs; it was started without "
                         "--allow-adapter-changes");
}

void check_name(const Serving& serving, const std::string& name) {
  if (!is_model_name(name)) throw invalid_request("lora_name", fmt::format("'lora_name' has {}", kModelName));
  if (name == serving.models.base()->id) {
    throw invalid_request("lora_name", fmt::format("'lora_name' is {}, which is the base model", name));
  }
}

}  // namespace

fs::path below_root(const fs::path& root, const std::string& path) {
  std::error_code error;
  const fs::path top = fs::canonical(root, error);
  const fs::path found = error ? fs::path() : fs::canonical(top / path, error);
  if (error) throw invalid_request("lora_path", "'lora_path' names no directory below the server's --adapter-root");
  const auto [end, ignored] = std::mismatch(top.begin(), top.end(), found.begin(), found.end());
  if (end != top.end() || found == top || !fs::is_directory(found, error)) {
    throw invalid_request("lora_path", "'lora_path' names no directory below the server's --adapter-root");
  }
  return found;
}

void load_adapter_route(Serving& serving, Call call) {
  check_allowed(serving);
  const openai::LoadAdapterRequest asked = openai::parse_load_adapter(call.request.body);
  check_name(serving, asked.name);
  if (!asked.replace && serving.models.find(asked.name) != nullptr) {
    throw invalid_request("lora_name", fmt::format("the adapter {} is there already; \"load_inplace\": true puts "
                                                   "another one in its place",
                                                   asked.name));
  }
  const fs::path directory = below_root(*serving.settings.adapter_root, asked.path);
  load_adapter(serving, {asked.name}, directory, [call, name = asked.name](const std::optional<Error>& error) {
    if (error) {
      const openai::ApiError refused = openai::api_error_of(*error, "lora_path");
      return reply(call, {.status = refused.status, .body = refused.body()});
    }
    reply(call, {.type = "text/plain; charset=utf-8", .body = openai::loaded_text(name)});
  });
}

HttpResponse unload_adapter(Serving& serving, const HttpRequest& request) {
  check_allowed(serving);
  const openai::UnloadAdapterRequest asked = openai::parse_unload_adapter(request.body);
  if (!serving.models.remove(asked.name)) throw openai::model_not_found(asked.name);
  log::info("adapter {} removed", asked.name);
  return {.type = "text/plain; charset=utf-8", .body = openai::unloaded_text(asked.name)};
}

}  // namespace drover
