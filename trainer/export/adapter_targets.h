// Adapters as programs need them that read less than PEFT does. Each computes the same: what they do not read is folded
// into B.
#pragma once
#include "model/config.h"
#include "trainer/export/merge.h"

namespace drover {

// An adapter that is to be written: names and shapes of its factors, and where their values come from.
struct AdapterForm {
  AdapterConfig config;
  FactorShapes shapes;
  FactorValues values;
};

// vLLM scales all linears by one alpha/r and takes ranks of 8, 16, 32, 64, 128, 256, 320 and 512 only: every rank is
// padded with zeros to the next of these above the largest, B is multiplied by its linear's scale over that of the
// configuration, patterns and rsLoRA are gone. bad_data for a rank above 512, and for anything outside the blocks.
AdapterForm for_vllm(const AdapterForm& adapter);

// llama.cpp reads a GGUF file and scales by alpha over a factor's own rank: alpha becomes scale · r, and B takes what a
// pattern says otherwise. The rows of q's and k's B are in turn from both halves of a head, as in its models. bad_data
// for anything outside the blocks.
void write_for_llamacpp(const AdapterForm& adapter, const ModelConfig& model, const fs::path& file);

// One line: which programs load such an adapter as PEFT has it, and which need one of the forms above.
std::string loads_in(const AdapterConfig& config);

}  // namespace drover
