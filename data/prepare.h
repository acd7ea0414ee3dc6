// From files of rows to a token store: rendered, tokenised, cut to length, packed.
#pragma once
#include <map>
#include <optional>

#include "configs/choices.h"
#include "data/chat_template.h"
#include "data/token_store.h"

namespace drover {

struct DataSource {
  fs::path path;  // as data_files.h takes it
  RowFormat format = RowFormat::automatic;
  double weight = 1;  // multiplies the loss weight of every token of its rows
  double repeat = 1;  // how often its rows come in an epoch
};

struct PrepareSettings {
  std::vector<DataSource> sources;
  FieldNames fields;
  std::optional<ChatTemplate> chat;
  bool special = false;  // control tokens that are written in texts are control tokens
  std::string date = "26 Jul 2024";
  TrainOn train_on = TrainOn::assistant;
  int64_t max_length = 2048;
  bool packing = true;
  BadRows bad_rows = BadRows::error;
  bool whole_rows =
      false;  // every row is one document, also one without trained tokens; longer than max_length it is a bad row
};

struct PrepareReport {
  std::vector<RowFormat> formats;  // of each source; automatic: it has no row
  int64_t rows_read = 0, rows_skipped = 0;
  int64_t rows_failed = 0;         // answers that `drover generate` could not give, passed over
  int64_t cut = 0;                 // dialogs longer than max_length, cut at the end
  int64_t cut_before_answers = 0;  // of these, with all their trained tokens behind the cut
  int64_t split = 0;               // texts longer than max_length, split
  int64_t dropped = 0;             // shorter than two tokens, or without a trained token after the cut
  int64_t rewritten = 0;  // assistant's turns that the template writes otherwise once others follow: not trained
  std::map<std::string, int64_t> ignored;  // fields that mean nothing here, and how many rows have them
  std::vector<std::string> unmet_fields;   // of data.fields: the file's names that no row has
  int64_t rendered = 0;                    // texts with spellings of control tokens, which are read as letters
  int64_t alpaca_prompts = 0;              // rows of alpaca that became Alpaca's own prompt for want of a chat template
  int64_t within_token = 0;                // completions that begin within a token
  std::vector<std::string> complaints;
};

// What a store made with these settings is known by: a SHA-256 over the sources' bytes, the tokenizer and everything
// that shapes rows.
std::string store_identity(const PrepareSettings& settings, const Tokenizer& tokenizer);

// Every document of the store has a trained token and a weight above 0, hence every global batch has. bad_data when
// there is none; io when a source changes while it is read; bad_recipe for a dialog where no chat template is known.
// Documents are added to `store`, which has none.
TokenStore prepare(const PrepareSettings& settings, const Tokenizer& tokenizer, PrepareReport& report,
                   TokenStore store = {});

// A document as people read it, its trained tokens between the two marks and every control token in ⟨ ⟩, apart from
// text that spells one.
std::string show(const Document& document, const Tokenizer& tokenizer, const std::string& open_mark,
                 const std::string& close_mark);

}  // namespace drover
