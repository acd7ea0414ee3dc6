// Whether a model comes under one of Meta's Llama licences. Said only where it is known: by a licence, policy or page
// in its directory, by its name at the hub, or because it has exactly the shape of an original.
#pragma once
#include <optional>
#include <string>

#include "model/config.h"

namespace drover {

struct LlamaLicence {
  std::string version;                                        // "3", "3.1", "3.2"
  std::string hub_word() const { return "llama" + version; }  // as Hugging Face's front matter has it
  // What Section 1.b of the licence asks for, of version 3 and from 3.1 on.
  std::string sentence() const { return version == "3" ? "Built with Meta Llama 3" : "Built with Llama"; }
  std::string name_begin() const { return version == "3" ? "Llama 3" : "Llama"; }
  bool operator==(const LlamaLicence&) const = default;
};

// That a licence or use policy names, from Llama 3 on: "Llama 3.1 Community License"; and that a page's front matter
// does: "license: llama3.1". What else a page speaks of is not its licence.
std::optional<LlamaLicence> licence_in_text(const std::string& text);
std::optional<LlamaLicence> licence_in_page(const std::string& page);

std::optional<LlamaLicence> licence_of(const fs::path& base, const ModelConfig& config);

// What people call the base: its hub's name where the hub's cache or config.json says it, else the directory's name.
std::string name_of_base(const fs::path& base);

}  // namespace drover
