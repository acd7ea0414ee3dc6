// What the keys of a recipe that name one of several things may hold. An enum's table is its words: for reading,
// printing and every text.
#pragma once
#include <cstdint>
#include <initializer_list>
#include <string>
#include <string_view>
#include <type_traits>
#include <utility>
#include <vector>

namespace drover {

template <typename E>
concept Choice = std::is_enum_v<E>;

template <Choice E>
struct Word {
  E value;
  const char* name;
};
template <Choice E>
inline constexpr std::initializer_list<Word<E>> kWords = {};

// device
enum class DeviceChoice : uint8_t { automatic, cpu, cuda };
template <>
inline constexpr std::initializer_list<Word<DeviceChoice>> kWords<DeviceChoice> = {
    {DeviceChoice::automatic, "auto"}, {DeviceChoice::cpu, "cpu"}, {DeviceChoice::cuda, "cuda"}};

// method
enum class Method : uint8_t { lora };
template <>
inline constexpr std::initializer_list<Word<Method>> kWords<Method> = {{Method::lora, "lora"}};

// data.format and the format of one file; prompt: {"prompt"} or {"messages"}, which only a file of prompts holds
enum class RowFormat : uint8_t { automatic, messages, text, sharegpt, alpaca, prompt_completion, ids, prompt };
template <>
inline constexpr std::initializer_list<Word<RowFormat>> kWords<RowFormat> = {
    {RowFormat::automatic, "auto"}, {RowFormat::messages, "messages"},
    {RowFormat::text, "text"},      {RowFormat::sharegpt, "sharegpt"},
    {RowFormat::alpaca, "alpaca"},  {RowFormat::prompt_completion, "prompt_completion"},
    {RowFormat::ids, "ids"}};

// data.fields: our name of a field, and the file's. Below: the names that there are, of a row and of a turn in it.
using FieldNames = std::vector<std::pair<std::string, std::string>>;
inline constexpr const char* kFieldsOfRows[] = {
    "messages", "conversations",  "system",      "tools", "text",   "prompt",  "completion", "input_ids",
    "labels",   "attention_mask", "instruction", "input", "output", "history", "weight"};
inline constexpr const char* kFieldsOfTurns[] = {"role", "content", "from", "value"};

// data.template
enum class TemplateChoice : uint8_t { automatic, llama3_1, llama3, chatml };
template <>
inline constexpr std::initializer_list<Word<TemplateChoice>> kWords<TemplateChoice> = {
    {TemplateChoice::automatic, "auto"},
    {TemplateChoice::llama3_1, "llama3.1"},
    {TemplateChoice::llama3, "llama3"},
    {TemplateChoice::chatml, "chatml"}};

// data.train_on
enum class TrainOn : uint8_t { assistant, all, last };
template <>
inline constexpr std::initializer_list<Word<TrainOn>> kWords<TrainOn> = {
    {TrainOn::assistant, "assistant"}, {TrainOn::all, "all"}, {TrainOn::last, "last"}};

// data.bad_rows
enum class BadRows : uint8_t { error, skip };
template <>
inline constexpr std::initializer_list<Word<BadRows>> kWords<BadRows> = {{BadRows::error, "error"},
                                                                         {BadRows::skip, "skip"}};

// model.weights
enum class WeightFormat : uint8_t { as_is, bf16, fp8, nf4 };
template <>
inline constexpr std::initializer_list<Word<WeightFormat>> kWords<WeightFormat> = {{WeightFormat::as_is, "as_is"},
                                                                                   {WeightFormat::bf16, "bf16"},
                                                                                   {WeightFormat::fp8, "fp8"},
                                                                                   {WeightFormat::nf4, "nf4"}};

// train.dtype and output.adapter_dtype
enum class Precision : uint8_t { bf16, fp32 };
template <>
inline constexpr std::initializer_list<Word<Precision>> kWords<Precision> = {{Precision::bf16, "bf16"},
                                                                             {Precision::fp32, "fp32"}};

// train.matmul
enum class MatmulNumbers : uint8_t { bf16, fp8 };
template <>
inline constexpr std::initializer_list<Word<MatmulNumbers>> kWords<MatmulNumbers> = {{MatmulNumbers::bf16, "bf16"},
                                                                                     {MatmulNumbers::fp8, "fp8"}};

// optim.schedule
enum class LearningRateShape : uint8_t { constant, linear, cosine };
template <>
inline constexpr std::initializer_list<Word<LearningRateShape>> kWords<LearningRateShape> = {
    {LearningRateShape::constant, "constant"},
    {LearningRateShape::linear, "linear"},
    {LearningRateShape::cosine, "cosine"}};

// parallel.transport
enum class Transport : uint8_t { automatic, nccl, staged };
template <>
inline constexpr std::initializer_list<Word<Transport>> kWords<Transport> = {
    {Transport::automatic, "auto"}, {Transport::nccl, "nccl"}, {Transport::staged, "staged"}};

// memory.activation_checkpointing
enum class ActivationCheckpointing : uint8_t { none, full };
template <>
inline constexpr std::initializer_list<Word<ActivationCheckpointing>> kWords<ActivationCheckpointing> = {
    {ActivationCheckpointing::none, "none"}, {ActivationCheckpointing::full, "full"}};

// memory.weights
enum class WeightHome : uint8_t { resident, host };
template <>
inline constexpr std::initializer_list<Word<WeightHome>> kWords<WeightHome> = {{WeightHome::resident, "resident"},
                                                                               {WeightHome::host, "host"}};

template <Choice E>
constexpr const char* word_of(E value) {
  for (const Word<E>& word : kWords<E>) {
    if (word.value == value) return word.name;
  }
  return "?";
}

// The words of these values, of all without any.
template <Choice E>
std::vector<const char*> words_of(std::initializer_list<E> values = {}) {
  std::vector<const char*> words;
  for (E value : values) words.push_back(word_of(value));
  if (values.size() != 0) return words;
  for (const Word<E>& word : kWords<E>) words.push_back(word.name);
  return words;
}

// Into `value`; false where no value has this word.
template <Choice E>
bool read_word(std::string_view name, E& value) {
  for (const Word<E>& word : kWords<E>) {
    if (name != word.name) continue;
    value = word.value;
    return true;
  }
  return false;
}

}  // namespace drover
