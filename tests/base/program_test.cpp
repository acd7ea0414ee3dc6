// Printed commands can be pasted: a word is quoted where the shell would take it apart.
#include "kernels/base/program.h"

#include <gtest/gtest.h>

#include <cstdio>

namespace drover {
namespace {

std::string echoed(const std::string& word) {
  FILE* pipe = popen(("printf %s " + shell_quoted(word)).c_str(), "r");
  std::string out;
  for (int c = 0; (c = std::fgetc(pipe)) != EOF;) out += static_cast<char>(c);
  EXPECT_EQ(pclose(pipe), 0);
  return out;
}

TEST(Program, WordsAreQuotedForTheShell) {
  EXPECT_EQ(shell_quoted("runs/a-1.b"), "runs/a-1.b");
  EXPECT_EQ(shell_quoted(""), "''");
  for (const std::string word : {"a b", "it's", "$HOME", "~/x", "a\"b", "é", "a;b", "`x`", "*", "a\nb", "#3"})
    EXPECT_EQ(echoed(word), word);
}

}  // namespace
}  // namespace drover
