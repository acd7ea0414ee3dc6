#include "data/jinja/parser.h"

#include <algorithm>

namespace drover::jinja {

namespace {

constexpr int kDeepestExpression = 800;  // a pair of brackets passes four levels
constexpr int kDeepestBlock = 100;

// A token as it is named in messages.
std::string spelled(const Token& token) {
  using Kind = Token::Kind;
  switch (token.kind) {
    case Kind::block_end: return "the tag's end";
    case Kind::print_end: return "}}";
    case Kind::string: return "a string";
    case Kind::data: return "text";
    case Kind::end: return "the template's end";
    default: return token.text;
  }
}

}  // namespace

bool Tokens::take_symbol(std::string_view text) {
  const bool here = is_symbol(text);
  if (here) next();
  return here;
}

bool Tokens::take_name(std::string_view text) {
  const bool here = is_name(text);
  if (here) next();
  return here;
}

void Tokens::expect_symbol(std::string_view text) {
  if (!take_symbol(text))
    throw SyntaxError(peek().place, fmt::format("{} should stand here, not {}", text, spelled(peek())));
}

void Tokens::expect_name(std::string_view text) {
  if (!take_name(text))
    throw SyntaxError(peek().place, fmt::format("{} should stand here, not {}", text, spelled(peek())));
}

void Tokens::expect(Token::Kind kind, const char* what) {
  if (!is(kind)) throw SyntaxError(peek().place, fmt::format("{} should stand here, not {}", what, spelled(peek())));
  next();
}

std::string Tokens::name(const char* what) {
  if (!is(Token::Kind::name))
    throw SyntaxError(peek().place, fmt::format("{} should stand here, not {}", what, spelled(peek())));
  return next().text;
}

Tokens::Deeper::Deeper(Tokens& tokens) : tokens_(tokens) {
  if (++tokens_.depth_ > kDeepestExpression) {
    --tokens_.depth_;
    throw SyntaxError(tokens_.peek().place, "it is nested too deeply");
  }
}

namespace {

class StatementParser {
 public:
  explicit StatementParser(std::string_view source) : tokens_(tokenize(source)) {}

  Body whole() {
    Body body = until({});
    if (!tokens_.is(Token::Kind::end))
      throw SyntaxError(tokens_.peek().place, fmt::format("{} ends nothing", tokens_.peek().text));
    return body;
  }

 private:
  using Names = std::initializer_list<std::string_view>;

  // Statements up to a tag of one of the names, which is then the next token, or to the end.
  Body until(Names names) {
    if (++depth_ > kDeepestBlock)
      throw SyntaxError(tokens_.peek().place, fmt::format("blocks are nested more than {} deep", kDeepestBlock));
    Body body;
    using Kind = Token::Kind;
    while (!tokens_.is(Kind::end)) {
      const Place place = tokens_.peek().place;
      if (tokens_.is(Kind::data)) {
        add<Data>(body, place)->text = tokens_.next().text;
      } else if (tokens_.is(Kind::print_begin)) {
        tokens_.next();
        add<Print>(body, place)->expression = parse_tuple(tokens_);
        tokens_.expect(Kind::print_end, "}}");
      } else {
        tokens_.next();  // {%
        if (std::ranges::any_of(names, [&](std::string_view name) { return tokens_.is_name(name); })) break;
        if (tokens_.peek().text.starts_with("end") || tokens_.is_name("else") || tokens_.is_name("elif"))
          throw SyntaxError(place, fmt::format("{{% {} %}} ends nothing", tokens_.peek().text));
        statement(body, place);
      }
    }
    --depth_;
    return body;
  }

  template <typename Node>
  static Node* add(Body& body, const Place& place) {
    auto node = std::make_unique<Node>();
    node->place = place;
    Node* raw = node.get();
    body.push_back(std::move(node));
    return raw;
  }

  void end_of_tag() { tokens_.expect(Token::Kind::block_end, "%}"); }

  // The body of a block that `opened` began, and its end tag.
  Body block(const Place& opened, std::string_view end) {
    end_of_tag();
    Body body = until({end});
    close(opened, end);
    return body;
  }

  void close(const Place& opened, std::string_view end) {
    if (!tokens_.take_name(end)) throw SyntaxError(opened, fmt::format("the block has no {{% {} %}}", end));
    end_of_tag();
  }

  void statement(Body& body, const Place& place) {
    const std::string name = tokens_.name("a statement");
    if (name == "if") return if_block(*add<If>(body, place));
    if (name == "for") return for_block(*add<For>(body, place));
    if (name == "set") return set(body, place);
    if (name == "macro") return macro(*add<Macro>(body, place));
    if (name == "generation") {
      auto* node = add<Generation>(body, place);
      node->body = block(place, "endgeneration");
      return;
    }
    if (name == "filter") {
      auto* node = add<FilterBlock>(body, place);
      do node->filters.push_back(parse_filter(tokens_));
      while (tokens_.take_symbol("|"));
      node->body = block(place, "endfilter");
      return;
    }
    if (name == "break" || name == "continue") {
      if (loops_ == 0) throw SyntaxError(place, fmt::format("{} stands in no loop", name));
      add<LoopControl>(body, place)->flow = name == "break" ? Flow::break_loop : Flow::next_round;
      return end_of_tag();
    }
    throw SyntaxError(place, fmt::format("the statement {} is not supported", name));
  }

  void if_block(If& node) {
    while (true) {
      ExpressionPtr condition = parse_tuple(tokens_);
      end_of_tag();
      node.branches.emplace_back(std::move(condition), until({"elif", "else", "endif"}));
      if (!tokens_.take_name("elif")) break;
    }
    if (tokens_.take_name("else")) {
      node.otherwise = block(node.place, "endif");
    } else {
      close(node.place, "endif");
    }
  }

  void for_block(For& node) {
    node.target = target();
    tokens_.expect_name("in");
    node.over = parse_expression(tokens_, false);
    if (tokens_.is_symbol(","))
      throw SyntaxError(tokens_.peek().place, "a loop over a list without brackets is not supported");
    if (tokens_.take_name("if")) node.condition = parse_expression(tokens_);
    if (tokens_.is_name("recursive")) throw SyntaxError(tokens_.peek().place, "a recursive loop is not supported");
    end_of_tag();
    ++loops_;
    node.body = until({"else", "endfor"});
    --loops_;
    if (tokens_.take_name("else")) {
      node.otherwise = block(node.place, "endfor");
    } else {
      close(node.place, "endfor");
    }
  }

  Target target_item() {
    if (tokens_.take_symbol("(")) {
      Target inner = target();
      tokens_.expect_symbol(")");
      return inner;
    }
    Target one;
    one.name = tokens_.name("a name");
    if (tokens_.take_symbol(".")) one.field = tokens_.name("a field's name");
    return one;
  }

  Target target() {
    Target first = target_item();
    if (!tokens_.is_symbol(",")) return first;
    Target tuple;
    tuple.parts.push_back(std::move(first));
    while (tokens_.take_symbol(",")) tuple.parts.push_back(target_item());
    return tuple;
  }

  void set(Body& body, const Place& place) {
    Target where = target();
    if (tokens_.take_symbol("=")) {
      auto* node = add<Set>(body, place);
      node->target = std::move(where);
      node->value = parse_tuple(tokens_);
      return end_of_tag();
    }
    auto* node = add<SetBlock>(body, place);
    node->target = std::move(where);
    while (tokens_.take_symbol("|")) node->filters.push_back(parse_filter(tokens_));
    node->body = block(place, "endset");
  }

  void macro(Macro& node) {
    node.name = tokens_.name("the macro's name");
    tokens_.expect_symbol("(");
    while (!tokens_.is_symbol(")")) {
      std::string parameter = tokens_.name("a parameter's name");
      ExpressionPtr otherwise = tokens_.take_symbol("=") ? parse_expression(tokens_) : nullptr;
      node.parameters.emplace_back(std::move(parameter), std::move(otherwise));
      if (!tokens_.take_symbol(",")) break;
    }
    tokens_.expect_symbol(")");
    const int loops = std::exchange(loops_, 0);
    node.body = block(node.place, "endmacro");
    loops_ = loops;
  }

  Tokens tokens_;
  int depth_ = 0, loops_ = 0;
};

}  // namespace

Body parse(std::string_view source) { return StatementParser(source).whole(); }

}  // namespace drover::jinja
