// A model's configuration as the keys llama.* of a GGUF file, both ways. Llama 3's rope scaling is no key but a tensor:
// what the frequency of each pair of a head is divided by.
#pragma once
#include <vector>

#include "model/config.h"
#include "model/files/gguf.h"
#include "model/files/gguf_writer.h"

namespace drover {

// bad_data naming the key where the file is no Llama or says what config.json could not.
ModelConfig read_gguf_config(const GgufFile& file);

// general.architecture and llama.*; drover.rope.* for a scaling that read_gguf_config would not find by itself.
void write_gguf_config(GgufWriter& writer, const ModelConfig& config);

// The E/2 divisors of config.rope_scaling, which must be there.
std::vector<float> rope_divisors(const ModelConfig& config);

}  // namespace drover
