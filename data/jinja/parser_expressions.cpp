// Expressions by recursive descent, in Jinja's order of precedence: if-else, or, and, not, comparisons, + -, ~,
// * / // %, **, unary + -, then . [] () and filters and tests.
#include <array>
#include <charconv>

#include "data/jinja/parser.h"

namespace drover::jinja {

namespace {

template <typename Node>
std::unique_ptr<Node> make(const Place& place) {
  auto node = std::make_unique<Node>();
  node->place = place;
  return node;
}

ExpressionPtr parse_unary(Tokens& tokens, bool with_filters);

ExpressionPtr literal(const Place& place, Value value) {
  auto node = make<Literal>(place);
  node->value = std::move(value);
  return node;
}

ExpressionPtr number(const Token& token) {
  const char *begin = token.text.data(), *end = begin + token.text.size();
  if (token.kind == Token::Kind::real) {
    double value = 0;
    std::from_chars(begin, end, value);
    return literal(token.place, value);
  }
  int64_t value = 0;
  if (std::from_chars(begin, end, value).ec != std::errc{}) throw SyntaxError(token.place, "the number is too large");
  return literal(token.place, value);
}

ExpressionPtr parse_list(Tokens& tokens, std::string_view close, bool tuple) {
  auto node = make<ListOf>(tokens.peek().place);
  node->tuple = tuple;
  while (!tokens.is_symbol(close)) {
    node->items.push_back(parse_expression(tokens));
    if (!tokens.take_symbol(",")) break;
  }
  tokens.expect_symbol(close);
  return node;
}

ExpressionPtr parse_dict(Tokens& tokens) {
  auto node = make<DictOf>(tokens.peek().place);
  while (!tokens.is_symbol("}")) {
    ExpressionPtr key = parse_expression(tokens);
    tokens.expect_symbol(":");
    node->items.emplace_back(std::move(key), parse_expression(tokens));
    if (!tokens.take_symbol(",")) break;
  }
  tokens.expect_symbol("}");
  return node;
}

ExpressionPtr parse_parentheses(Tokens& tokens) {
  if (tokens.take_symbol(")")) {
    auto empty = make<ListOf>(tokens.peek().place);
    empty->tuple = true;
    return empty;
  }
  ExpressionPtr inner = parse_tuple(tokens);
  tokens.expect_symbol(")");
  return inner;
}

ExpressionPtr parse_primary(Tokens& tokens) {
  const Tokens::Deeper deeper(tokens);
  const Token token = tokens.next();
  using Kind = Token::Kind;
  if (token.kind == Kind::integer || token.kind == Kind::real) return number(token);
  if (token.kind == Kind::string) {
    std::string text = token.text;
    while (tokens.is(Kind::string)) text += tokens.next().text;
    return literal(token.place, written(text));
  }
  if (token.kind == Kind::name) {
    const std::string& t = token.text;
    if (t == "true" || t == "True") return literal(token.place, true);
    if (t == "false" || t == "False") return literal(token.place, false);
    if (t == "none" || t == "None") return literal(token.place, None{});
    auto node = make<Name>(token.place);
    node->name = t;
    return node;
  }
  if (token.kind == Kind::symbol) {
    if (token.text == "(") return parse_parentheses(tokens);
    if (token.text == "[") return parse_list(tokens, "]", false);
    if (token.text == "{") return parse_dict(tokens);
  }
  throw SyntaxError(token.place, token.kind == Kind::symbol
                                     ? fmt::format("a value should stand here, not {}", token.text)
                                     : "a value should stand here");
}

ExpressionPtr parse_subscript(Tokens& tokens, ExpressionPtr of, const Place& place) {
  std::array<ExpressionPtr, 3> parts;
  size_t part = 0;
  bool slice = false;
  while (!tokens.is_symbol("]")) {
    if (tokens.take_symbol(":")) {
      slice = true;
      if (++part > 2) throw SyntaxError(tokens.peek().place, "a slice has at most three parts");
    } else if (parts[part]) {
      throw SyntaxError(tokens.peek().place, "a ] should stand here");
    } else {
      parts[part] = parse_expression(tokens);
    }
  }
  tokens.expect_symbol("]");
  if (!slice) {
    if (!parts[0]) throw SyntaxError(place, "the brackets are empty");
    auto node = make<Item>(place);
    node->of = std::move(of);
    node->index = std::move(parts[0]);
    return node;
  }
  auto node = make<Slice>(place);
  node->of = std::move(of);
  node->begin = std::move(parts[0]);
  node->end = std::move(parts[1]);
  node->step = std::move(parts[2]);
  return node;
}

ExpressionPtr parse_call(Tokens& tokens, ExpressionPtr callee, const Place& place) {
  auto node = make<CallOf>(place);
  node->callee = std::move(callee);
  node->arguments = parse_arguments(tokens);
  return node;
}

ExpressionPtr parse_postfix(Tokens& tokens, ExpressionPtr value) {
  while (true) {
    const Place place = tokens.peek().place;
    if (tokens.take_symbol(".")) {
      if (tokens.is(Token::Kind::integer)) {
        auto node = make<Item>(place);
        node->of = std::move(value);
        node->index = number(tokens.next());
        value = std::move(node);
        continue;
      }
      auto node = make<Attribute>(place);
      node->of = std::move(value);
      node->name = tokens.name("an attribute's name");
      value = std::move(node);
    } else if (tokens.take_symbol("[")) {
      value = parse_subscript(tokens, std::move(value), place);
    } else if (tokens.is_symbol("(")) {
      value = parse_call(tokens, std::move(value), place);
    } else {
      return value;
    }
  }
}

// `is name`, `is not name`, with an argument in brackets or bare.
ExpressionPtr parse_test(Tokens& tokens, ExpressionPtr input, const Place& place) {
  auto node = make<Tested>(place);
  node->input = std::move(input);
  node->negated = tokens.take_name("not");
  node->name = tokens.name("a test's name");
  node->test = find_test(node->name);
  const bool keyword = tokens.is_name("else") || tokens.is_name("or") || tokens.is_name("and") ||
                       tokens.is_name("is") || tokens.is_name("if") || tokens.is_name("in") || tokens.is_name("not");
  using Kind = Token::Kind;
  if (tokens.is_symbol("(")) {
    node->arguments = parse_arguments(tokens);
  } else if ((tokens.is(Kind::name) && !keyword) || tokens.is(Kind::string) || tokens.is(Kind::integer) ||
             tokens.is(Kind::real) || tokens.is_symbol("[") || tokens.is_symbol("{")) {
    node->arguments.positional.push_back(parse_postfix(tokens, parse_primary(tokens)));
  }
  return node;
}

ExpressionPtr parse_filters(Tokens& tokens, ExpressionPtr value) {
  while (true) {
    const Place place = tokens.peek().place;
    if (tokens.take_symbol("|")) {
      auto node = make<Filtered>(place);
      node->input = std::move(value);
      node->call = parse_filter(tokens);
      value = std::move(node);
    } else if (tokens.take_name("is")) {
      value = parse_test(tokens, std::move(value), place);
    } else if (tokens.is_symbol("(")) {
      value = parse_call(tokens, std::move(value), place);
    } else {
      return value;
    }
  }
}

ExpressionPtr binary(const Place& place, BinaryOperator which, ExpressionPtr left, ExpressionPtr right) {
  auto node = make<Binary>(place);
  node->which = which;
  node->left = std::move(left);
  node->right = std::move(right);
  return node;
}

ExpressionPtr parse_power(Tokens& tokens) {
  ExpressionPtr left = parse_unary(tokens, true);
  while (tokens.is_symbol("**")) {
    const Place place = tokens.next().place;
    left = binary(place, BinaryOperator::power, std::move(left), parse_unary(tokens, true));
  }
  return left;
}

ExpressionPtr parse_unary(Tokens& tokens, bool with_filters) {
  const Tokens::Deeper deeper(tokens);
  const Place place = tokens.peek().place;
  ExpressionPtr value;
  if (tokens.is_symbol("-") || tokens.is_symbol("+")) {
    auto node = make<Unary>(place);
    node->kind = tokens.next().text == "-" ? Unary::Kind::minus : Unary::Kind::plus;
    node->operand = parse_unary(tokens, false);
    value = std::move(node);
  } else {
    value = parse_primary(tokens);
  }
  value = parse_postfix(tokens, std::move(value));
  return with_filters ? parse_filters(tokens, std::move(value)) : std::move(value);
}

struct Level {
  std::string_view symbol;
  BinaryOperator which;
};

// Operators of one level, from the left.
template <typename Next>
ExpressionPtr parse_level(Tokens& tokens, std::initializer_list<Level> levels, const Next& next) {
  ExpressionPtr left = next(tokens);
  while (true) {
    const auto* level = std::ranges::find_if(levels, [&](const Level& l) { return tokens.is_symbol(l.symbol); });
    if (level == levels.end()) return left;
    const Place place = tokens.next().place;
    left = binary(place, level->which, std::move(left), next(tokens));
  }
}

ExpressionPtr parse_product(Tokens& tokens) {
  using enum BinaryOperator;
  return parse_level(tokens, {{"*", multiply}, {"/", divide}, {"//", floor_divide}, {"%", remainder}}, parse_power);
}
ExpressionPtr parse_concatenation(Tokens& tokens) {
  return parse_level(tokens, {{"~", BinaryOperator::concatenate}}, parse_product);
}
ExpressionPtr parse_sum(Tokens& tokens) {
  using enum BinaryOperator;
  return parse_level(tokens, {{"+", add}, {"-", subtract}}, parse_concatenation);
}

std::optional<Comparison::Kind> take_comparison(Tokens& tokens) {
  using Kind = Comparison::Kind;
  static constexpr std::array<std::pair<std::string_view, Kind>, 6> symbols{{{"==", Kind::equal},
                                                                             {"!=", Kind::unequal},
                                                                             {"<", Kind::less},
                                                                             {"<=", Kind::less_equal},
                                                                             {">", Kind::greater},
                                                                             {">=", Kind::greater_equal}}};
  for (const auto& [symbol, kind] : symbols) {
    if (tokens.take_symbol(symbol)) return kind;
  }
  if (tokens.take_name("in")) return Kind::in;
  if (!tokens.is_name("not") || tokens.peek(1).kind != Token::Kind::name || tokens.peek(1).text != "in")
    return std::nullopt;
  tokens.next();
  tokens.next();
  return Kind::not_in;
}

ExpressionPtr parse_comparison(Tokens& tokens) {
  const Place place = tokens.peek().place;
  ExpressionPtr first = parse_sum(tokens);
  auto node = make<Comparison>(place);
  while (const auto kind = take_comparison(tokens)) node->rest.emplace_back(*kind, parse_sum(tokens));
  if (node->rest.empty()) return first;
  node->first = std::move(first);
  return node;
}

ExpressionPtr parse_not(Tokens& tokens) {
  const Tokens::Deeper deeper(tokens);
  const Place place = tokens.peek().place;
  if (!tokens.take_name("not")) return parse_comparison(tokens);
  auto node = make<Unary>(place);
  node->kind = Unary::Kind::negation;
  node->operand = parse_not(tokens);
  return node;
}

ExpressionPtr parse_logical(Tokens& tokens, bool conjunction) {
  const auto operand = [&] { return conjunction ? parse_not(tokens) : parse_logical(tokens, true); };
  ExpressionPtr left = operand();
  while (tokens.is_name(conjunction ? "and" : "or")) {
    auto node = make<Logical>(tokens.next().place);
    node->conjunction = conjunction;
    node->left = std::move(left);
    node->right = operand();
    left = std::move(node);
  }
  return left;
}

}  // namespace

ExpressionPtr parse_expression(Tokens& tokens, bool conditional) {
  const Tokens::Deeper deeper(tokens);
  ExpressionPtr value = parse_logical(tokens, false);
  while (conditional && tokens.is_name("if")) {
    auto node = make<Conditional>(tokens.next().place);
    node->condition = parse_logical(tokens, false);
    node->yes = std::move(value);
    if (tokens.take_name("else")) node->no = parse_expression(tokens);
    value = std::move(node);
  }
  return value;
}

ExpressionPtr parse_tuple(Tokens& tokens) {
  const Place place = tokens.peek().place;
  ExpressionPtr first = parse_expression(tokens);
  if (!tokens.is_symbol(",")) return first;
  auto node = make<ListOf>(place);
  node->tuple = true;
  node->items.push_back(std::move(first));
  while (tokens.take_symbol(",")) {
    if (tokens.is_symbol(")") || tokens.is(Token::Kind::block_end) || tokens.is(Token::Kind::print_end)) break;
    node->items.push_back(parse_expression(tokens));
  }
  return node;
}

CallArguments parse_arguments(Tokens& tokens) {
  CallArguments arguments;
  tokens.expect_symbol("(");
  while (!tokens.is_symbol(")")) {
    if (tokens.is_symbol("*") || tokens.is_symbol("**"))
      throw SyntaxError(tokens.peek().place, "arguments from a list or mapping (*, **) are not supported");
    const Token& after = tokens.peek(1);
    if (tokens.is(Token::Kind::name) && after.kind == Token::Kind::symbol && after.text == "=") {
      std::string name = tokens.next().text;
      tokens.next();
      arguments.named.emplace_back(std::move(name), parse_expression(tokens));
    } else if (!arguments.named.empty()) {
      throw SyntaxError(tokens.peek().place, "an argument without a name stands behind one with a name");
    } else {
      arguments.positional.push_back(parse_expression(tokens));
    }
    if (!tokens.take_symbol(",")) break;
  }
  tokens.expect_symbol(")");
  return arguments;
}

FilterCall parse_filter(Tokens& tokens) {
  FilterCall call;
  call.name = tokens.name("a filter's name");
  call.filter = find_filter(call.name);
  if (tokens.is_symbol("(")) call.arguments = parse_arguments(tokens);
  return call;
}

}  // namespace drover::jinja
