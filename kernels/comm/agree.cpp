#include "kernels/comm/agree.h"

#include <algorithm>
#include <map>

namespace drover {

std::string list_ranks(const std::vector<int>& ranks) {
  constexpr size_t kMost = 16;
  std::string text;
  for (size_t i = 0; i < ranks.size() && i < kMost; ++i) {
    if (i > 0) text += i + 1 == ranks.size() ? " and " : ", ";
    text += std::to_string(ranks[i]);
  }
  if (ranks.size() > kMost) text += fmt::format(" and {} more", ranks.size() - kMost);
  return text;
}

void agree_or_throw(Communicator& world, const std::optional<Error>& mine) {
  const std::string word = mine ? fmt::format("{} {}", static_cast<int>(mine->fault()), mine->what()) : std::string();
  const std::vector<std::string> words = world.gather_strings(word);
  const auto first = std::find_if(words.begin(), words.end(), [](const std::string& w) { return !w.empty(); });
  if (first == words.end()) return;
  const size_t space = first->find(' ');
  const Fault fault = static_cast<Fault>(std::stoi(first->substr(0, space)));
  const std::string message = first->substr(space + 1);
  // Where all ranks met the same error, a rank's number would say nothing.
  const bool everywhere = std::count(words.begin(), words.end(), *first) == static_cast<std::ptrdiff_t>(words.size());
  throw Error(fault, everywhere ? message : fmt::format("{} (on rank {})", message, first - words.begin()));
}

void check_same(Communicator& world, const std::string& label, const std::string& value) {
  const std::vector<std::string> values = world.gather_strings(value);
  std::map<std::string, int> votes;
  for (const std::string& v : values) ++votes[v];
  if (votes.size() == 1) return;
  // Of equally common values, that of the lowest rank is taken as the right one.
  const std::string& common = *std::max_element(values.begin(), values.end(),
                                                [&](const auto& a, const auto& b) { return votes[a] < votes[b]; });
  std::vector<int> odd;
  for (size_t rank = 0; rank < values.size(); ++rank) {
    if (values[rank] != common) odd.push_back(static_cast<int>(rank));
  }
  fail(Fault::bad_recipe,
       "{} differs on rank{} {} from that of the other ranks; start all ranks with the same recipe, program and files",
       label, odd.size() > 1 ? "s" : "", list_ranks(odd));
}

}  // namespace drover
