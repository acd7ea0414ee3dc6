// The formats of rows, one file each: which fields make one, and how its row is read.
#pragma once
#include <span>

#include "configs/choices.h"
#include "data/formats/row.h"

namespace drover {

struct RowFormatSpec {
  RowFormat format;
  std::span<const char* const> fields;             // that it reads, without those that every format reads
  std::span<const char* const> needed;             // of these: a row that has them may be of this format
  void (*read)(const OrderedJson& row, Row& out);  // std::exception or bad_data saying what is wrong
};

// OpenAI's {"messages": […], "tools": …, "system": …}
extern const RowFormatSpec kMessagesFormat;
// {"text": …}
extern const RowFormatSpec kTextFormat;
// {"conversations": [{"from": "human", "value": …}, …]}, of role and content too
extern const RowFormatSpec kShareGptFormat;
// {"instruction": …, "input": …, "output": …, "system": …, "history": [[question, answer], …]}
extern const RowFormatSpec kAlpacaFormat;
// {"prompt": …, "completion": …}: two strings, or two lists of messages
extern const RowFormatSpec kPromptCompletionFormat;
// {"input_ids": […], "labels": […]}, as a tokenizer gives them
extern const RowFormatSpec kIdsFormat;
// {"prompt": …} or {"messages": …}, to be answered
extern const RowFormatSpec kPromptFormat;

const RowFormatSpec& format_of(RowFormat format);  // not of automatic

}  // namespace drover
