// What comes from files reaches a page as text, never as markup.
#include "trainer/report/html.h"

#include <gmock/gmock.h>

namespace drover {
namespace {

using testing::HasSubstr;
using testing::Not;

TEST(Html, EscapesTextsAndAttributesOnce) {
  EXPECT_EQ(Html::text("<script>&\"'").string(), "&lt;script&gt;&amp;&quot;&#39;");
  const Html inner = Html::element("b", {{"title", "\"><i>"}}, "a < b");
  EXPECT_EQ(Html::element("p", {}, inner).string(), "<p><b title=\"&quot;&gt;&lt;i&gt;\">a &lt; b</b></p>");
  EXPECT_EQ(Html::element("br").string(), "<br/>");
}

TEST(Html, HasNoControlCharactersAndNoBrokenBytes) {
  EXPECT_EQ(Html::text(std::string("a\0b\x1b[31m\xff\n", 10)).string(), "a\uFFFDb\uFFFD[31m\uFFFD\n");
}

TEST(Csv, QuotesWhatWouldEndACell) {
  EXPECT_EQ(csv_of({.headings = {"a", "b"}, .rows = {{"1,5", "say \"x\""}, {"", "two\nlines"}}}),
            "a,b\n\"1,5\",\"say \"\"x\"\"\"\n,\"two\nlines\"\n");
}

TEST(DetailsTable, ShowsSomeOfManyRowsAndLinksAll) {
  TableText table{.headings = {"step"}};
  for (int i = 0; i < 150; ++i) table.rows.push_back({std::to_string(i)});
  const std::string html = details_table("numbers", table, "x.csv").string();
  EXPECT_THAT(html, HasSubstr("<td>147</td>"));
  EXPECT_THAT(html, Not(HasSubstr("<td>148</td>")));
  EXPECT_THAT(html, HasSubstr("one row of 3"));
  EXPECT_THAT(html, HasSubstr("data:text/csv;charset=utf-8,step%0A0%0A1%0A"));
  EXPECT_THAT(html, HasSubstr("%0A149%0A"));
}

}  // namespace
}  // namespace drover
