// The parts of a tokenizer.json around its model: normalizer, pre_tokenizer, decoder, post_processor. What is not
// understood is refused by name: bad_data.
#pragma once
#include <optional>
#include <string>
#include <vector>

#include "data/token_texts.h"
#include "data/words.h"
#include "kernels/base/file.h"
#include "kernels/base/json.h"

namespace drover {

[[noreturn]] void unsupported(const fs::path& file, const std::string& what);
// Refuses a field of `object` that is not null and not among `known`. `what` names the object.
void check_fields(const Json& object, std::initializer_list<std::string_view> known, const std::string& what,
                  const fs::path& file);

struct WordRules {
  std::optional<PreTokenizer::Kind> byte_level;  // else characters, with:
  std::vector<MarkedWords::Step> steps;
  std::optional<MarkedWords::Metaspace> metaspace;
};
WordRules word_rules(const Json& tokenizer, const fs::path& file);

// A missing decoder is that of the words where these are byte-level.
DecoderRule decoder_rule(const Json& tokenizer, bool byte_level, const fs::path& file);

// The ids that the post_processor puts before and behind a single text, whatever they are.
struct DocumentFrame {
  std::vector<int64_t> before, after;
};
DocumentFrame document_frame(const Json& post_processor, const fs::path& file);

}  // namespace drover
