#include "trainer/export/base_licence.h"

#include <algorithm>
#include <cctype>
#include <regex>

#include "kernels/base/hub_cache.h"
#include "kernels/base/json.h"

namespace drover {

namespace {

constexpr size_t kLargestPage = size_t{1} << 20, kReadOfPage = 64 << 10;

std::string text_of(const fs::path& file) {
  std::error_code ignored;
  if (!fs::is_regular_file(file, ignored) || fs::file_size(file, ignored) > kLargestPage) return {};
  try {
    return read_text(file, kLargestPage).substr(0, kReadOfPage);
  } catch (const Error&) {
    return {};  // a page that cannot be read says nothing
  }
}

std::string in_lower_case(std::string text) {
  std::ranges::transform(text, text.begin(), [](unsigned char c) { return static_cast<char>(std::tolower(c)); });
  return text;
}

bool is_licence(const std::string& name) {
  const std::string lower = in_lower_case(name);
  return lower.starts_with("license") || lower.starts_with("licence") || lower.starts_with("use_policy");
}

// "models--meta-llama--Llama-3.1-8B/snapshots/REVISION", as the hub's cache has it.
std::string name_in_cache(const fs::path& directory) {
  const fs::path snapshots = directory.parent_path();
  const std::string folder = snapshots.parent_path().filename().string(), begin = "models--";
  if (snapshots.filename() != "snapshots" || !folder.starts_with(begin)) return {};
  std::string name = folder.substr(begin.size());
  const size_t cut = name.find("--");
  if (cut == std::string::npos) return {};
  return name.replace(cut, 2, "/");
}

std::string name_in_config(const fs::path& base) {
  const Json config = Json::parse(text_of(base / "config.json"), nullptr, false);
  if (!config.is_object() || !config.contains("_name_or_path") || !config["_name_or_path"].is_string()) return {};
  const std::string name = config["_name_or_path"];
  return is_hub_name(name) ? name : std::string();
}

// All that a shape says of the weights; how they are stored and which tokens end an answer may differ.
bool same_shape(ModelConfig a, const ModelConfig& b) {
  a.bos = b.bos;
  a.eos = b.eos;
  a.storage_dtype = b.storage_dtype;
  return a == b;
}

std::optional<LlamaLicence> licence_of_shape(const ModelConfig& config) {
  for (const std::string& name : known_model_names()) {
    const size_t begin = std::string("llama").size();
    if (name.starts_with("llama") && same_shape(config, *known_model(name)))
      return LlamaLicence{name.substr(begin, name.find('-') - begin)};
  }
  return std::nullopt;
}

}  // namespace

std::optional<LlamaLicence> licence_in_text(const std::string& text) {
  static const std::regex named(R"(llama[ _-]?([3-9](\.[0-9])?)\s+(community\s+licen[sc]e|acceptable\s+use\s+policy))",
                                std::regex::icase);
  std::smatch match;
  if (!std::regex_search(text, match, named)) return std::nullopt;
  return LlamaLicence{match[1]};
}

std::optional<LlamaLicence> licence_in_page(const std::string& page) {
  const size_t end = page.find("\n---", 3);
  if (!page.starts_with("---") || end == std::string::npos) return std::nullopt;
  static const std::regex field(R"(\nlicense(_name)?:\s*["']?llama-?([3-9](\.[0-9])?)["']?\s*\n)", std::regex::icase);
  const std::string front = page.substr(0, end + 1);
  std::smatch match;
  if (!std::regex_search(front, match, field)) return std::nullopt;
  return LlamaLicence{match[2]};
}

std::string name_of_base(const fs::path& base) {
  const fs::path directory = fs::absolute(base).lexically_normal();
  const fs::path plain = directory.has_filename() ? directory : directory.parent_path();
  for (const std::string& name : {name_in_cache(plain), name_in_config(base)}) {
    if (!name.empty()) return name;
  }
  return plain.filename().string();
}

std::optional<LlamaLicence> licence_of(const fs::path& base, const ModelConfig& config) {
  std::error_code ignored;
  std::vector<fs::path> licences;
  for (const auto& entry : fs::directory_iterator(base, ignored)) {
    if (is_licence(entry.path().filename().string())) licences.push_back(entry.path());
  }
  std::ranges::sort(licences);
  for (const fs::path& file : licences) {
    if (const auto licence = licence_in_text(text_of(file))) return licence;
  }
  if (const auto licence = licence_in_page(text_of(base / "README.md"))) return licence;
  static const std::regex original(R"(meta-llama/(meta-)?llama-([3-9](\.[0-9])?)-.*)", std::regex::icase);
  std::smatch match;
  const std::string name = name_of_base(base);
  if (std::regex_match(name, match, original)) return LlamaLicence{match[2]};
  return licence_of_shape(config);
}

}  // namespace drover
