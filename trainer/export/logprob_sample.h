// logprobs.json of an adapter's directory: the documents that comparison.json compares, with ln p of their trained
// tokens over the base that the adapter was trained over. So loading it over a base of another format can say by how
// much they differ.
//
//   {"documents": [{"ids": [1, 17, …], "trained": [5, 6, …], "logprobs": [-0.12345, …]}]}
//
// `trained`: places in ids, from 1 on; `logprobs` are theirs, to five decimals.
#pragma once
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "kernels/base/file.h"

namespace drover {

class TokenStore;

inline constexpr const char* kSampleFile = "logprobs.json";
inline constexpr size_t kSampleBytes = size_t{64} << 10;  // at most

struct LogprobSample {
  struct Document {
    std::vector<int32_t> ids;
    std::vector<int64_t> trained;
  };
  std::vector<Document> documents;
  std::vector<float> logprobs;  // of all documents' trained tokens, in their order
  size_t longest() const;       // tokens of a document
};

// `logprobs`: of every trained token but a first one. Documents that do not fit any more are left out.
std::string sample_json(const TokenStore& documents, std::span<const float> logprobs);
LogprobSample parse_sample(const std::string& text, const std::string& where);  // bad_data
// Nothing where the adapter has none; bad_data.
std::optional<LogprobSample> read_sample(const fs::path& adapter);

}  // namespace drover
