#include "launch/serve/rendering.h"

#include <algorithm>

#include "launch/openai/api_error.h"
#include "trainer/setup/inputs.h"

namespace drover {

namespace {

// Without what the template writes behind the last message, so that the answer continues it.
void reopen_last_message(Rendered& rendered, const Tokenizer& tokenizer) {
  std::vector<int32_t>& ids = rendered.ids;
  while (!ids.empty() && rendered.trained[ids.size() - 1] == 0) ids.pop_back();
  if (!ids.empty() && tokenizer.is_special(ids.back())) ids.pop_back();
}

}  // namespace

ServedModelPtr find_model(const Serving& serving, const std::string& id) {
  ServedModelPtr model = serving.models.find(id);
  if (model == nullptr) throw openai::model_not_found(id);
  return model;
}

std::vector<int32_t> render_dialog(const Serving& serving, const ServedModel& model, const openai::Dialog& dialog) {
  if (!model.manner.chat) {
    throw openai::invalid_request("messages", fmt::format("{} has no chat template; ask /v1/completions, or start the "
                                                          "server with data.template=…",
                                                          model.id));
  }
  const ChatTemplate& chat = *model.manner.chat;
  const RenderOptions options{.date = serving.settings.recipe.data.template_date,
                              .add_generation_prompt = dialog.add_generation_prompt,
                              .tools = dialog.tools};
  try {
    Rendered rendered = render(as_read(dialog.messages, dialog.tools, chat), chat, serving.tokenizer, options);
    if (dialog.continue_final_message) reopen_last_message(rendered, serving.tokenizer);
    if (dialog.add_special_tokens && serving.tokenizer.adds_bos()) {
      rendered.ids.insert(rendered.ids.begin(), *serving.tokenizer.bos());
    }
    check_ids(rendered.ids, serving.config, "the prompt");
    return rendered.ids;
  } catch (const Error& error) {
    throw openai::api_error_of(error, "messages");
  }
}

std::vector<int32_t> text_ids(const Serving& serving, const std::string& text, bool framed) {
  try {
    const Tokenizer& tokenizer = serving.tokenizer;
    std::vector<int32_t> ids = tokenizer.encode_special(text);
    if (framed) {
      ids.insert(ids.begin(), tokenizer.before().begin(), tokenizer.before().end());
      ids.insert(ids.end(), tokenizer.after().begin(), tokenizer.after().end());
    }
    check_ids(ids, serving.config, "the prompt");
    return ids;
  } catch (const Error& error) {
    throw openai::api_error_of(error, "prompt");
  }
}

}  // namespace drover
