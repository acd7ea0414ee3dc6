"""What lint reads of a C++ file: its functions, with their lines and parameters, and its types. No parser: braces,
parentheses and the words before them, which is enough for a tree that clang-format has written."""

import collections
import re

Function = collections.namedtuple("Function", "name line lines parameters")
_NOT_NAMES = {"alignas", "decltype", "requires", "sizeof", "__launch_bounds__"}
_SCOPE = re.compile(r"\b(namespace|struct|class|enum|union|extern)\b[^()=]*$")


def blank(text):
    """The text with comments, strings and preprocessor lines made spaces, so that only code is left."""
    spaces = lambda match: re.sub(r"[^\n]", " ", match[0])
    pattern = (
        r'R"(\w*)\(.*?\)\1"'  # raw strings
        r"|//[^\n]*|/\*.*?\*/"
        r'|"(?:\\.|[^"\\\n])*"'
        r"|(?<![0-9a-fA-F])'(?:\\.|[^'\\\n])+'"  # not a digit separator
        r"|^[ \t]*#(?:[^\n]*\\\n)*[^\n]*"
    )
    return re.sub(pattern, spaces, text, flags=re.S | re.M)


def _closing(code, at):
    """The index behind the bracket that closes the one at `at`."""
    depth = 0
    for i in range(at, len(code)):
        depth += (code[i] in "([{") - (code[i] in ")]}")
        if depth == 0:
            return i + 1
    return len(code)


def _line(code, start):
    """The line on which the statement from `start` on begins."""
    text = code[start:]
    label = re.match(r"\s*(?:public|private|protected)\s*:", text)
    skipped = label.end() if label else 0
    return code.count("\n", 0, start + skipped + len(text[skipped:]) - len(text[skipped:].lstrip())) + 1


def _parameters(inside):
    """How many parameters a parenthesised list has; commas in nested brackets and templates are not its own."""
    depth, commas = 0, 0
    for before, char in zip(" " + inside, inside):
        depth += (char in "([{<") - (char in ")]}" or char == ">" and before != "-")
        commas += char == "," and depth == 0
    return commas + 1 if inside.strip() not in ("", "void") else 0


def _signature(statement):
    """(name, parameters) where a statement declares or defines a function, else None."""
    template = re.match(r"\s*template\s*<", statement)
    if template:  # its own parentheses are none of the function's
        depth = 0
        for i in range(template.end() - 1, len(statement)):
            depth += (statement[i] == "<") - (statement[i] == ">")
            if depth == 0:
                return _signature(statement[i + 1 :])
    for match in re.finditer(r"((?:\w+::)*(?:operator\s*(?:\(\)|[^\s\w(]+|\w+)|~?\w+))\s*\(", statement):
        name, before = match[1], statement[: match.start()]
        if name in _NOT_NAMES or re.search(r"=|\busing\b", before) or name.startswith("DROVER_"):
            continue
        end = _closing(statement, match.end() - 1)
        after = statement[end:].strip()
        if re.fullmatch(
            r"(const|noexcept|override|final|&|&&|->[^{;]*|= ?0|= ?default|= ?delete|:.*|\s)*", after, re.S
        ):
            return name, _parameters(statement[match.end() : end - 1])
    return None


def _statements(code, i, end):
    """(start, at) of every statement of the scope between i and end; `at` is where its `;` is, or its body's `{`."""
    start = i
    while i < end:
        at, i = i, i + 1
        if code[at] in "([{":
            i = _closing(code, at)
        if code[at] == ";" or code[at] == "{" and code[i:].lstrip()[:1] not in (",", "{"):  # a member's initialiser
            yield start, at
            start = i


def _scan(code, i, end, found):
    """Adds the functions between i and end, which are a scope: a file's, a namespace's, a class's."""
    for start, at in _statements(code, i, end):
        statement = code[start:at]
        if code[at] == "{" and _SCOPE.search(statement):
            if "enum" not in statement:
                _scan(code, at + 1, _closing(code, at) - 1, found)
        elif signature := _signature(statement):
            line = _line(code, start)
            lines = code.count("\n", 0, _closing(code, at)) + 2 - line if code[at] == "{" else 0
            found.append(Function(signature[0], line, lines, signature[1]))


def functions(text):
    """Every function that is defined or declared; a declaration has 0 lines. Lambdas count with what holds them."""
    found = []
    code = blank(text)
    _scan(code, 0, len(code), found)
    return found


def types(text):
    """`namespace::Name` of every class and enum that other files can name: defined in namespaces that have names."""
    code, found = blank(text), []

    def scan(i, end, within):
        for start, at in _statements(code, i, end):
            if code[at] == ";":
                continue
            statement = code[start:at]
            space = re.search(r"\bnamespace\s*([\w:]*)\s*$", statement)
            kind = re.search(r"\b(?:struct|class|union|enum)\s+(\w+)(?:\s+final)?\s*(?::[^:].*)?$", statement, re.S)
            if space and space[1]:
                scan(at + 1, _closing(code, at) - 1, f"{within}{space[1]}::")
            elif kind and not space:
                found.append(within + kind[1])

    scan(0, len(code), "")
    return found
