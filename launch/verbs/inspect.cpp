// drover inspect: what is in a model, adapter, checkpoint or token store.
#include <iostream>
#include <nlohmann/json.hpp>

#include "data/token_store.h"
#include "kernels/base/hash.h"
#include "launch/verbs/verb.h"
#include "model/files/safetensors.h"
#include "model/files/stored_formats.h"
#include "trainer/run/checkpoint.h"

namespace drover {

namespace {

using nlohmann::ordered_json;

struct Arguments {
  std::string path;
  bool json = false;
};

std::string hash_of(std::span<const std::byte> bytes) {
  return fmt::format("{:016x}", xxh3(bytes.data(), bytes.size()));
}

ordered_json safetensors_json(const fs::path& file) {
  const SafetensorsFile st(file);
  const MappedFile whole(file);
  ordered_json tensors = ordered_json::array();
  for (const StoredTensor& t : st.tensors()) {
    const std::string hash = hash_of(whole.bytes().subspan(t.offset, t.bytes));
    tensors.push_back({{"name", t.name}, {"dtype", name_of(t.dtype)}, {"shape", t.shape}, {"xxh3", hash}});
  }
  return {{"file", file.filename().string()}, {"bytes", st.file_bytes()}, {"tensors", tensors}};
}

// How a model's weights are quantised, and next to each tensor what it means; nothing of one in plain numbers.
ordered_json quantisation_json(const fs::path& path, ordered_json& files) {
  if (!fs::exists(path / "config.json")) return nullptr;
  try {
    if (!read_quantisation(path)) return nullptr;
    ModelDirectory model(path);
    const StoredFormats stored = stored_formats(model);
    for (auto& file : files) {
      for (auto& tensor : file["tensors"]) {
        const auto name = tensor["name"].get<std::string>();
        if (const auto part = stored.part_of.find(name); part != stored.part_of.end()) {
          tensor["part_of"] = part->second;
        } else if (const auto weight = stored.weights.find(name); weight != stored.weights.end()) {
          tensor["format"] = weight->second.format;
          tensor["weight_shape"] = weight->second.shape;
        }
      }
    }
    return {{"method", stored.method}, {"linears", stored.linears}, {"bytes", stored.bytes}};
  } catch (const Error& error) {
    return {{"not_read", error.what()}};
  }
}

ordered_json describe(const fs::path& path) {
  if (!fs::exists(path)) fail(Fault::missing_input, "{} does not exist", path.string());
  if (path.extension() == ".safetensors") return {{"kind", "safetensors"}, {"files", {safetensors_json(path)}}};
  if (path.extension() == ".h5") {
    const TokenStore store = TokenStore::open(path);
    std::vector<int32_t> ids;
    store.each_document([&](const Document& d) { ids.insert(ids.end(), d.ids.begin(), d.ids.end()); });
    const ordered_json tensor = {{"name", "ids"},
                                 {"dtype", "I32"},
                                 {"shape", {store.tokens()}},
                                 {"xxh3", hash_of(std::as_bytes(std::span(ids)))}};
    return {{"kind", "token store"},          {"sha256", sha256_file(path)},
            {"documents", store.documents()}, {"rows", store.rows()},
            {"tokens", store.tokens()},       {"trained_tokens", store.trained_tokens(0, store.documents())},
            {"identity", store.identity()},   {"tensors", ordered_json::array({tensor})}};
  }
  if (fs::exists(path / "manifest.json")) {
    const Checkpoint c = Checkpoint::open(path);
    ordered_json tensors = ordered_json::array();
    for (const std::string& name : c.factor_names()) {
      const auto [rows, cols] = c.shape(name);
      std::vector<float> values(static_cast<size_t>(rows * cols));
      c.read("parameters", name, 0, rows, 0, cols, values.data());
      tensors.push_back({{"name", name},
                         {"dtype", "F32"},
                         {"shape", {rows, cols}},
                         {"xxh3", hash_of(std::as_bytes(std::span(values)))}});
    }
    return {{"kind", "checkpoint"}, {"step", c.state().step}, {"identity", c.state().identity}, {"tensors", tensors}};
  }
  if (fs::is_directory(path)) {
    ordered_json files = ordered_json::array();
    std::vector<fs::path> found;
    for (const auto& entry : fs::directory_iterator(path)) {
      if (entry.path().extension() == ".safetensors") found.push_back(entry.path());
    }
    std::sort(found.begin(), found.end());
    for (const fs::path& file : found) files.push_back(safetensors_json(file));
    if (!files.empty()) {
      if (fs::exists(path / "adapter_config.json")) return {{"kind", "adapter"}, {"files", files}};
      const ordered_json quantisation = quantisation_json(path, files);
      ordered_json model = {{"kind", "model"}};
      if (!quantisation.is_null()) model["quantisation"] = quantisation;
      model["files"] = files;
      return model;
    }
  }
  if (fs::exists(path / "recipe.yaml")) {
    std::vector<std::string> parts;
    for (const auto& entry : fs::directory_iterator(path)) {
      if (entry.is_directory() && !entry.path().filename().string().starts_with("set-aside"))
        parts.push_back(entry.path().string());
    }
    std::sort(parts.begin(), parts.end());
    fail(Fault::usage, "{} is a run; inspect one of {}", path.string(), fmt::join(parts, ", "));
  }
  fail(Fault::bad_data, "{} is not a model, adapter, checkpoint, token store or safetensors file", path.string());
}

void print_tensors(const ordered_json& tensors) {
  for (const auto& t : tensors) {
    if (t.contains("part_of")) continue;  // a weight's scales are no weight
    const auto format = t.contains("format") ? t["format"] : t["dtype"];
    const auto shape = t.contains("weight_shape") ? t["weight_shape"] : t["shape"];
    std::cout << fmt::format("  {:<64} {:<5} {:<16} {}\n", t["name"].get<std::string>(), format.get<std::string>(),
                             shape.dump(), t.value("xxh3", ""));
  }
}

void print_quantisation(const ordered_json& quantisation) {
  for (const auto& [key, value] : quantisation.items()) {
    std::string text = value.is_string() ? value.get<std::string>() : "";
    if (value.is_object()) {
      for (const auto& [format, count] : value.items())
        text += fmt::format("{}{} {}", text.empty() ? "" : ", ", format, count.dump());
    }
    std::cout << fmt::format("quantisation, {}: {}\n", key, text);
  }
}

Exit run(const Arguments& a) {
  const ordered_json d = describe(a.path);
  if (a.json) {
    std::cout << d.dump(1) << '\n';
    return Exit::done;
  }
  for (const auto& [key, value] : d.items()) {
    if (key == "files") {
      for (const auto& file : value) {
        std::cout << fmt::format("{} ({} bytes)\n", file["file"].get<std::string>(), file["bytes"].dump());
        print_tensors(file["tensors"]);
      }
    } else if (key == "quantisation") {
      print_quantisation(value);
    } else if (key == "tensors") {
      print_tensors(value);
    } else {
      std::cout << fmt::format("{}: {}\n", key, value.is_string() ? value.get<std::string>() : value.dump());
    }
  }
  return Exit::done;
}

}  // namespace

Verb inspect_verb(CLI::App& app) {
  const auto a = std::make_shared<Arguments>();
  CLI::App* options =
      app.add_subcommand("inspect", "names, shapes, dtypes and hashes of a model, adapter, checkpoint or token store");
  options->add_option("path", a->path, "a file or directory")->required();
  options->add_flag("--json", a->json, "print the result as JSON");
  options->footer("example: drover inspect runs/handbook/adapter");
  return {.options = options, .run = [a](const Process&) { return run(*a); }};
}

}  // namespace drover
