// Templates are evaluated as transformers' Jinja does it (goldens), remember where every character came from, and are
// refused with line and column where they ask for more.
#include "data/jinja/library.h"
#include "data/jinja/template.h"
#include "kernels/base/file.h"
#include "tests/base/scratch_directory.h"
#include "tests/data/tokenizer_files.h"

namespace drover::jinja {
namespace {

std::string rendered(const std::string& text, const Template::Variables& variables = {}, const Limits& limits = {}) {
  return Template(text, "t.jinja").render(variables, limits).bytes();
}

Template::Variables golden_variables(const OrderedJson& json) {
  Template::Variables variables;
  for (const auto& [name, value] : json.items()) variables.emplace_back(name, from_json(value, {}));
  variables.emplace_back("strftime_now", Callable{"strftime_now", [](Interpreter&, const Arguments& arguments) {
                                                    EXPECT_EQ(arguments.positional[0].text()->bytes(),
                                                              "%Y-%m-%d %A %B %H");
                                                    return written("2024-07-26 Friday July 00");
                                                  }});
  return variables;
}

// What transformers renders and this does not: refused, never rendered otherwise.
const std::vector<std::string> kRefused = {"{{ \"%s\" % s }}"};

TEST(JinjaGolden, IsWhatTransformersRenders) {
  const OrderedJson golden =
      OrderedJson::parse(read_text(fs::path(DROVER_SOURCE_DIR) / "tests/golden/jinja.json", size_t{1} << 20));
  const Template::Variables variables = golden_variables(golden["variables"]);
  int rows = 0;
  for (const OrderedJson& row : golden["snippets"]) {
    const std::string text = row[0];
    ++rows;
    std::optional<std::string> got;
    std::string why;
    try {
      got = rendered(text, variables);
    } catch (const Error& error) {
      EXPECT_EQ(error.fault(), Fault::bad_data);
      why = error.what();
    }
    if (std::ranges::find(kRefused, text) != kRefused.end()) {
      EXPECT_FALSE(got.has_value()) << text;
    } else if (row[1].is_null()) {
      EXPECT_FALSE(got.has_value()) << text << " gives " << *got;
    } else {
      EXPECT_EQ(got.value_or("refused: " + why), row[1].get<std::string>()) << text;
    }
  }
  EXPECT_GE(rows, 105);
}

TEST(Jinja, TextKeepsItsOrigin) {
  const Origin said{Origin::Source::content, 1}, called{Origin::Source::call, 2};
  const Template::Variables variables{{"c", Text(" said ", said)},
                                      {"k", from_json(OrderedJson::parse(R"({"a": ["x", 1]})"), called)}};
  const auto origins = [&](const std::string& text) {
    std::string out;
    const Text whole = Template(text, "t").render(variables);
    size_t begin = 0;
    for (const Text::Run& run : whole.runs()) {
      const char* mark = run.origin == said ? "s" : run.origin == called ? "c" : "w";
      out += mark + ("<" + whole.bytes().substr(begin, run.end - begin)) + ">";
      begin = run.end;
    }
    return out;
  };
  EXPECT_EQ(origins("[{{ c }}]"), "w<[>s< said >w<]>");
  EXPECT_EQ(origins("{{ c|trim }}"), "s<said>");
  EXPECT_EQ(origins("{{ '<' + c.strip()[1:3]|upper + '>' }}"), "w<<>s<AI>w<>>");
  EXPECT_EQ(origins("{{ c.replace('i', '!') }}"), "s< sa>w<!>s<d >");
  EXPECT_EQ(origins("{{ c.split('a')|join('-') }}"), "s< s>w<->s<id >");
  EXPECT_EQ(origins("{{ k|tojson }}"), "w<{>c<\"a\">w<: [>c<\"x\">w<, 1]}>");
  EXPECT_EQ(origins("{% macro f(x) %}({{ x }}){% endmacro %}{% set y = f(c|trim) %}{{ y }}"), "w<(>s<said>w<)>");
  EXPECT_EQ(origins("{% for x in c %}{{ loop.index if x == 'i' else '' }}{{ x if x == 'i' }}{% endfor %}"), "w<4>s<i>");
  EXPECT_EQ(origins("{{ [c] }}"), "w<[>s<' said '>w<]>");
  const Text marked = Template("a{% generation %}{{ c }}b{% endgeneration %}c", "t").render(variables);
  EXPECT_FALSE(marked.origin_at(0).generated);
  EXPECT_TRUE(marked.origin_at(1).generated && marked.origin_at(7).generated);
  EXPECT_FALSE(marked.origin_at(8).generated);
}

TEST(Jinja, WhatIsNotSupportedIsNamedWithItsPlace) {
  const auto refuse = [](const std::string& text, const std::vector<std::string>& words) {
    expect_error(Fault::bad_data, words, [&] { Template(text, "dir/t.jinja"); });
  };
  refuse("a\n  {% include 'x' %}", {"dir/t.jinja", "line 2, column 3", "include is not supported"});
  refuse("{% for a in b recursive %}{% endfor %}", {"recursive"});
  refuse("{% macro f(*a) %}{% endmacro %}", {"a parameter's name should stand here, not *"});
  refuse("{{ f(*a) }}", {"arguments from a list"});
  refuse("{% raw %}{% endraw %}", {"the statement raw is not supported"});
  refuse("{% if a %}", {"the block has no {% endif %}"});
  refuse("{% for a in b %}{% endif %}", {"endif"});
  refuse("{% endfor %}", {"ends nothing"});
  refuse("{% break %}", {"break stands in no loop"});
  refuse("{{ 'a }}", {"the string does not end"});
  refuse("{{ a ", {"the tag does not end"});
  refuse("{# a", {"the comment does not end"});
  refuse("{{ a ? b }}", {"the character ? means nothing"});
  refuse("{{ (a] }}", {"closes nothing"});
  refuse("{{ }}", {"a value should stand here"});
  refuse("{{ a b }}", {"}} should stand here, not b"});
  refuse("{{ 99999999999999999999 }}", {"too large"});
  refuse("{{ '\\N{DASH}' }}", {"the escape \\N"});
  refuse("{{ f(a=1, 2) }}", {"behind one with a name"});
}

TEST(Jinja, WhatCannotBeEvaluatedIsNamedWithItsPlace) {
  const auto refuse = [](const std::string& text, const std::vector<std::string>& words) {
    expect_error(Fault::bad_data, words, [&] { rendered(text, {{"d", Dict{}}}); });
  };
  refuse("\n{{ x.y }}", {"t.jinja", "line 2, column 5", "x is undefined"});
  refuse("{{ 1 + 'a' }}", {"column 6", "an integer + a string is not supported"});
  refuse("{{ d.items }}", {"is a method of a mapping"});
  refuse("{{ d() }}", {"d is a mapping, which cannot be called"});
  refuse("{{ 'x'|urlize }}", {"line 1, column 7", "the filter urlize is not supported"});
  refuse("{{ 'x' is odder }}", {"column 8", "the test odder is not supported"});
  refuse("{{ 'x'.encode('x') }}", {"column 14", "a string has no method encode"});
  refuse("{{ d.update({}) }}", {"would change a mapping"});
  refuse("{{ ('x'|safe).replace('x', 'y') }}", {"a part of a safe string would be escaped"});
  refuse("{{ 'ß'|upper }}", {"the other case of ß"});
  refuse("{{ 'Σ'.lower() }}", {"the other case of Σ"});
  refuse("{{ 9223372036854775807 + 1 }}", {"leaves 64 bits"});
  refuse("{{ 3 ** 64 }}", {"leaves 64 bits"});
  refuse("{{ (0 - 9223372036854775807 - 1) // -1 }}", {"leaves 64 bits"});
  refuse("{{ 'a'|tojson(foo=1) }}", {"the argument foo is not supported"});
  refuse("{% set d.a = 1 %}", {"d is no namespace"});
  refuse("{% set a, b = [1] %}", {"1 values cannot be set to 2 names"});
  refuse("{{ raise_exception('Roles must <b>alternate</b>') }}", {"refuses the dialog", "Roles must <b>alternate</b>"});
}

TEST(Jinja, NothingRunsWithoutEnd) {
  const auto refuse = [](const std::string& text, const std::vector<std::string>& words) {
    expect_error(Fault::bad_data, words,
                 [&] { rendered(text, {}, {.steps = 100'000, .output_bytes = 100'000, .depth = 100}); });
  };
  refuse("{% for a in range(1000) %}{% for b in range(1000) %}{% endfor %}{% endfor %}", {"does not end after 100000"});
  refuse("{{ range(10000000)|list|length }}", {"does not end"});
  refuse("{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}", {"nested more than 100 deep"});
  refuse("{{ 'a' * 1000000 }}", {"more than 100000 bytes"});
  refuse("{{ 'ab' * 9223372036854775807 }}", {"more than 100000 bytes"});
  refuse("{% for a in range(9000) %}0123456789ABCDEF{% endfor %}", {"more than 100000 bytes"});
  refuse("{% set n = namespace(s='a') %}{% for a in range(30) %}{% set n.s = n.s + n.s %}{% endfor %}", {"bytes"});
  refuse("{% set n = namespace(s=[0]) %}{% for a in range(30) %}{% set n.s = n.s + n.s %}{% endfor %}",
         {"does not end"});
  const std::string deep(1000, '('), closed(1000, ')');
  expect_error(Fault::bad_data, {"nested too deeply"}, [&] { Template("{{ " + deep + "1" + closed + " }}", "t"); });
  std::string ifs;
  for (int i = 0; i < 5000; ++i) ifs += "{% if a %}";
  expect_error(Fault::bad_data, {"nested more than"}, [&] { Template(ifs, "t"); });
  std::string nots = "{{ ";
  for (int i = 0; i < 3000; ++i) nots += "not ";
  expect_error(Fault::bad_data, {"nested too deeply"}, [&] { Template(nots + "a }}", "t"); });
  std::string sum = "{{ 1";
  for (int i = 0; i < 5000; ++i) sum += " + 1";
  expect_error(Fault::bad_data, {"the tag is too long"}, [&] { Template(sum + " }}", "t"); });
}

// Printing, comparing and freeing a value are recursions, and a value may hold another a thousand times.
TEST(Jinja, ValuesStaySmall) {
  const auto refuse = [](const std::string& text, const std::vector<std::string>& words) {
    expect_error(Fault::bad_data, words, [&] { rendered(text); });
  };
  const std::string begin = "{% set n = namespace(v=[0]) %}{% for i in range(100000) %}";
  refuse(begin + "{% set n.v = [n.v] %}{% endfor %}{{ n.v }}", {"column 73", "more than 200 levels"});
  refuse(begin + "{% set n.v = {i: n.v} %}{% endfor %}{{ n.v == 1 }}", {"more than 200 levels"});
  refuse(begin + "{% set n.v = [n.v, n.v] %}{% endfor %}{{ n.v }}", {"more than 67108864 bytes"});
  refuse("{% set x = 'a' * 60000000 %}{{ [x, x]|length }}", {"list or mapping of more than 67108864 bytes"});
  refuse("{% set x = 'a' * 100000 %}{{ x.replace('a', x)|length }}", {"text of more than 67108864 bytes"});
  refuse("{% for c in 'a' * 2000000 %}{% endfor %}", {"more than 1000000 parts"});
  refuse("{{ ('a ' * 2000000).split()|length }}", {"more than 1000000 parts"});
  refuse("{{ ('a,' * 2000000).split(',')|length }}", {"more than 1000000 parts"});
  refuse("{{ ('\\n' * 2000000).splitlines()|length }}", {"more than 1000000 parts"});
  refuse("{{ range(1000000)|list|tojson(separators=['a' * 1000, ':']) }}", {"text of more than 67108864 bytes"});
  EXPECT_EQ(rendered("{% set x = 'ab' * 2000000 %}{{ x[:3] }}{{ x[-3::2] }}{{ x[1] }}"), "ababbb");
  const std::string chain = "{% set n = namespace(v=0) %}{% for i in range(500000) %}{% set n.v = namespace(v=n.v) %}";
  EXPECT_EQ(rendered(chain + "{% endfor %}{{ n.v.v.v is defined }}"), "True");
  EXPECT_EQ(rendered("{% set n = namespace() %}{% set n.self = [n] %}{{ n.self|length }}"), "1");
}

TEST(Jinja, AMacroMayLeaveItsLoop) {
  expect_error(Fault::bad_data, {"has left its loop"}, [] {
    rendered(
        "{% set n = namespace() %}{% for x in [1] %}{% macro f() %}{{ x }}{% endmacro %}{% set n.f = f %}{% endfor %}"
        "{% set f = n.f %}{{ f() }}");
  });
}

}  // namespace
}  // namespace drover::jinja
