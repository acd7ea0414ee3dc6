// What a training step eats, on the host: micro-batches of documents laid end to end, without padding.
#pragma once
#include <cstdint>
#include <vector>

namespace drover {

struct DocumentSpan {
  int64_t begin = 0, length = 0;  // tokens [begin, begin + length) of the micro-batch; documents do not see each other
};

struct MicroBatch {
  std::vector<int32_t> tokens;  // (T)
  std::vector<int32_t> labels;  // (T) the next token where it is trained, else -1; never across a document's end
  std::vector<float> weights;   // (T) loss weight, 0 where the label is -1
  std::vector<int32_t>
      positions;  // (T) restart at 0 in every document (a cut piece of a longer document starts at 0 too)
  std::vector<int32_t> documents;  // (T) ordinal of the document in the token store
  std::vector<DocumentSpan> spans;
  int64_t index = 0;  // among the micro-batches of the global batch
};

struct MicroBatchSize {
  int64_t tokens = 0, trained_tokens = 0;
};

// A rank's share of one optimizer step: micro-batches [first, first + micro_batches.size()) of `total`, dealt
// contiguously over dp.
struct Batch {
  std::vector<MicroBatch> micro_batches;
  int64_t total = 0;      // micro-batches of the global batch
  double weight_sum = 0;  // Σ w over the whole global batch
  int64_t tokens = 0;     // of the whole global batch, padding excluded
  int64_t trained_tokens = 0;
};

}  // namespace drover
