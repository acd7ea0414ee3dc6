// A file of JSON lines: as rows of every format, and as prompts, whose answered rows are rows again.
#include "data/rows.h"

#include "data/prompts.h"
#include "tests/fuzz/fuzz.h"

using namespace drover;

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const fs::path path = fuzz::written("rows.jsonl", fuzz::text_of(data, size));
  std::string answered;
  // Where bad rows are skipped, nothing in a file is an error.
  fuzz::accept({}, [&] {
    for (const RowFormat format : {RowFormat::automatic, RowFormat::messages, RowFormat::text, RowFormat::prompt}) {
      int64_t rows = 0;
      const auto use = [&](const Row& row) {
        ++rows;
        fuzz::holds(row.line >= 1, "a row knows its line");
        if (!row.messages.empty()) answered += answered_row({row.messages, "", ""}, "Ici.") + "\n";
      };
      fuzz::holds(read_rows(path, format, BadRows::skip, use).rows == rows, "every row is counted");
    }
  });
  fuzz::accept({}, [&] {
    const auto again = fuzz::written("answered.jsonl", answered);
    const int64_t lines = std::count(answered.begin(), answered.end(), '\n');
    fuzz::holds(read_rows(again, RowFormat::messages, BadRows::error, [](const Row&) {}).rows == lines,
                "an answered row is a row");
  });
  fuzz::accept({Fault::bad_data}, [&] { read_rows(path, RowFormat::automatic, BadRows::error, [](const Row&) {}); });
  for (const PromptRows rows : {PromptRows::good, PromptRows::good_and_failed, PromptRows::all}) {
    fuzz::accept({Fault::bad_data}, [&] {
      for (const Prompt& prompt : read_prompts(path, rows)) {
        fuzz::holds(prompt.dialog.empty() != prompt.problem.empty(), "a prompt has a dialog or a problem");
      }
    });
  }
  return 0;
}
