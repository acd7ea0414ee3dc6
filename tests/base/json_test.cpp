#include "kernels/base/json.h"

#include <gtest/gtest.h>

#include <chrono>

namespace drover {
namespace {

std::string refusal(const std::string& text) {
  try {
    parse_json(text, "file.json");
  } catch (const Error& error) {
    EXPECT_EQ(error.fault(), Fault::bad_data);
    return error.what();
  }
  return "";
}

TEST(Json, RefusesWhatIsNestedTooDeeply) {
  const std::string most = std::string(kJsonDepth, '[') + std::string(kJsonDepth, ']');
  EXPECT_EQ(refusal(most), "");
  EXPECT_NE(refusal('[' + most + ']').find("more than 64 levels"), std::string::npos);
  EXPECT_NE(refusal(std::string(1'000'000, '{')).find("more than 64 levels"), std::string::npos);
}

TEST(Json, CountsLevelsOutsideTexts) {
  EXPECT_EQ(json_depth(R"({"a": [1, {"b": "[[\"[[\\"}], "c": []})"), 3u);
  EXPECT_EQ(json_depth("]]}[x"), 1u);
  EXPECT_EQ(json_depth(R"("[[[)"), 0u);
}

TEST(Json, RefusesKeysTwiceInOneObjectOnly) {
  EXPECT_EQ(refusal(R"({"a": {"a": 1}, "b": [{"a": 1}, {"a": 2}]})"), "");
  EXPECT_NE(refusal(R"({"b": {"a": 1, "\u0061": 2}})").find("\"a\" stands twice"), std::string::npos);
}

TEST(Json, RefusesWhatIsNotJsonAndNumbersThatDoNotFit) {
  EXPECT_NE(refusal("{\"a\": }").find("not valid JSON"), std::string::npos);
  EXPECT_NE(refusal("[1e999]").find("not valid JSON"), std::string::npos);
  EXPECT_NE(refusal("\"\xff\"").find("not valid JSON"), std::string::npos);
  EXPECT_NE(refusal(std::string("{}\0}", 4)).find("a byte of 0"), std::string::npos);
}

// A list of n objects takes n steps, where a parser with a callback takes n²: half a minute for this one.
TEST(Json, LongListsOfObjectsAreReadAtOnce) {
  std::string text = "[{}";
  for (int i = 0; i < 300'000; ++i) text += ",{}";
  const auto start = std::chrono::steady_clock::now();
  EXPECT_EQ(parse_json(text + "]", "file.json").size(), 300'001u);
  EXPECT_LT(std::chrono::steady_clock::now() - start, std::chrono::seconds(10));
}

TEST(Json, KnowsUtf8) {
  EXPECT_TRUE(is_utf8("Où 🚚"));
  EXPECT_FALSE(is_utf8("\xc3"));
  EXPECT_FALSE(is_utf8("\xed\xa0\x80"));
}

}  // namespace
}  // namespace drover
