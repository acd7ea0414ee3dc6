// A file of rows: as every format, under other names, as a text, and as prompts, whose answered rows are rows again.
#include "data/rows.h"

#include "data/prompts.h"
#include "tests/fuzz/fuzz.h"

using namespace drover;

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const fs::path path = fuzz::written("rows.jsonl", fuzz::text_of(data, size));
  std::string answered;
  // Where bad rows are skipped, only the file as a whole is an error: compressed, a list that does not end.
  for (const RowFormat format : {RowFormat::automatic, RowFormat::messages, RowFormat::text, RowFormat::sharegpt,
                                 RowFormat::alpaca, RowFormat::prompt_completion, RowFormat::ids, RowFormat::prompt}) {
    fuzz::accept({Fault::bad_data}, [&] {
      int64_t rows = 0;
      const auto use = [&](const Row& row) {
        ++rows;
        fuzz::holds(row.line >= 1, "a row knows its line");
        if (!row.messages.empty()) answered += answered_row({row.messages, "", ""}, "Ici.") + "\n";
      };
      fuzz::holds(read_rows(path, format, BadRows::skip, use).rows == rows, "every row is counted");
    });
  }
  fuzz::accept({}, [&] {
    const auto again = fuzz::written("answered.jsonl", answered);
    const int64_t lines = std::count(answered.begin(), answered.end(), '\n');
    fuzz::holds(read_rows(again, RowFormat::messages, BadRows::error, [](const Row&) {}).rows == lines,
                "an answered row is a row");
  });
  fuzz::accept({Fault::bad_data}, [&] { read_rows(path, RowFormat::automatic, BadRows::error, [](const Row&) {}); });
  fuzz::accept({Fault::bad_data}, [&] {
    RowReader reader(RowFormat::automatic, {{"text", "messages"}, {"messages", "text"}, {"content", "role"}});
    read_rows(path, reader, BadRows::skip, [](const Row&) {});
  });
  fuzz::accept({Fault::bad_data}, [&] {
    const fs::path text = fuzz::written("rows.txt", fuzz::text_of(data, size));
    const auto use = [](const Row& row) { fuzz::holds(row.messages.empty(), "a text is no dialog"); };
    fuzz::holds(read_rows(text, RowFormat::text, BadRows::skip, use).rows <= 1, "a text is one row");
  });
  for (const PromptRows rows : {PromptRows::good, PromptRows::good_and_failed, PromptRows::all}) {
    fuzz::accept({Fault::bad_data}, [&] {
      for (const Prompt& prompt : read_prompts(path, rows)) {
        fuzz::holds(prompt.dialog.empty() != prompt.problem.empty(), "a prompt has a dialog or a problem");
      }
    });
  }
  return 0;
}
