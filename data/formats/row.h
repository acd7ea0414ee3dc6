// A row of data, of whatever format: a dialog, a text, a completion of a text, or ids.
#pragma once
#include <optional>
#include <string>
#include <vector>

#include "data/message.h"

namespace drover {

struct Row {
  std::vector<Message> messages;  // of a dialog
  size_t given = 0;               // so many of them, from the first, are a prompt: their answers are not trained
  OrderedJson tools = {};         // functions that the dialog may call: a list, or null

  // `prompt` present: it stands before `text` and is not trained, and the document ends with EOS. A dialog that has it
  // can be read so where there is no chat template.
  std::string text = {};
  std::optional<std::string> prompt = {};

  std::vector<int32_t> ids = {};
  std::optional<std::vector<uint8_t>> trained = {};  // per id; absent: all are

  std::string adapter = {};               // of a prompt: by which it is to be answered; empty: the row names none
  float weight = 1;                       // of its trained tokens
  int64_t line = 0;                       // from 1
  std::vector<std::string> ignored = {};  // fields that mean nothing here
};

}  // namespace drover
