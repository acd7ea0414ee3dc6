"""The habits of the tree, checked: format, arrows between folders, sizes, words; and that tests/run fails where a test
does. What is let pass stands in exceptions.py with its reason. Usage: lint_test.py [NAME…]     (unittest's names)"""

import collections
import os
import pathlib
import re
import shutil
import subprocess
import sys
import tempfile
import unittest

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent))
import exceptions  # noqa: E402
from source import functions, types  # noqa: E402

ROOT = pathlib.Path(__file__).resolve().parents[2]
COLUMNS, FUNCTION_LINES, FILE_LINES, PARAMETERS = 120, 60, 400, 7
FOLDERS = ".ci .github configs data kernels launch model optim tests trainer".split()
CXX = (".cpp", ".h", ".cu")
# Private words and the field's or everyday ones for them.
WORDS = {
    "aloud": "staged through host memory",
    "beside": "next to",
    "census": "finder",
    "going": "pending",
    "goes": "is, continues, needs",
    "margin": "padding",
    "mend": "fix",
    "settle": "finish",
    "strip": "padding, or nothing: a layout is the backend's secret",
    "told": "reported",
    "went": "result, continued",
}


def tree():
    """(name, text) of what is looked at; goldens come from other programs, and their scripts are in a manifest."""
    paths = [path for path in ROOT.iterdir() if path.is_file()]
    for folder in FOLDERS:
        paths += (path for path in (ROOT / folder).rglob("*") if path.is_file() and "__pycache__" not in path.parts)
    for path in sorted(paths):
        name = path.relative_to(ROOT).as_posix()
        data = name.startswith(("tests/golden/", "tests/fuzz/corpus/")) or path.suffix in (".json", ".jsonl", ".svg")
        if not data and name not in ("LICENSE", "data/sample/handbook.txt"):
            yield name, path.read_text()


def arrows():
    """{folder: folders whose headers it may include}, as the link lists of CMakeLists.txt say."""
    cmake = (ROOT / "CMakeLists.txt").read_text()
    trainer = [f"trainer/{part}" for part in re.search(r"set\(TRAINER ([^)]*)\)", cmake)[1].split()]
    folders, links = {}, {}
    for name, rest in re.findall(r"drover_library\((\w+) ([^)]*)\)", cmake):
        folder, *linked = rest.split()
        folders[name] = trainer if folder == '"${TRAINER}"' else [folder]
        links[name] = [library.removeprefix("drover_") for library in linked if library.startswith("drover_")]

    def reached(name):
        return {name}.union(*(reached(other) for other in links[name] if other in links))

    allowed = {
        folder: {f for other in reached(name) for f in folders[other]} for name in folders for folder in folders[name]
    }
    # Two that are no library of a folder: the CUDA backend's shared object, whose header its loader reads, and main.
    allowed["kernels/cuda_module"] = allowed["kernels/nccl"] | {"kernels/cuda_module"}
    allowed["kernels/devices"] |= {"kernels/cuda_module"}
    allowed["launch"] |= {"launch/verbs"}
    return allowed


def long_lines(name, text):
    if name.endswith(".md") or name in exceptions.LINE_LENGTH:
        return []
    return [f"{name}:{n}: {len(x)} columns" for n, x in enumerate(text.splitlines(), 1) if len(x) > COLUMNS]


def untidy_ends(name, text):
    problems = [f"{name}:{n}: ends in white space" for n, x in enumerate(text.split("\n"), 1) if x != x.rstrip(" \t\r")]
    return problems if text.endswith("\n") or not text else [*problems, f"{name}: the last line has no end"]


def long_files(name, text):
    lines = text.count("\n")
    known = name.endswith(".md") or name in exceptions.FILE_LINES
    return [f"{name}: {lines} lines"] if lines > FILE_LINES and not known else []


def big_functions(name, text):
    problems = []
    for f in functions(text) if name.endswith(CXX) else ():
        if f.lines > FUNCTION_LINES and f.name not in exceptions.FUNCTION_LINES.get(name, {}):
            problems.append(f"{name}:{f.line}: {f.name} has {f.lines} lines")
        if f.parameters > PARAMETERS and f.name not in exceptions.PARAMETERS.get(name, {}):
            problems.append(f"{name}:{f.line}: {f.name} has {f.parameters} parameters")
    return problems


def private_words(name, text):
    words = set(WORDS)
    for place, allowed in exceptions.WORDS.items():
        if name.startswith(place):
            words -= words if allowed is None else allowed
    if not words:
        return []
    found = re.compile(rf"(?<![\w-])({'|'.join(sorted(words))})(?![\w(-])", re.I)
    return [
        f"{name}:{n}: “{match[1]}” is a private word here; write: {WORDS[match[1].lower()]}"
        for n, line in enumerate(text.splitlines(), 1)
        for match in found.finditer(line)
    ]


def wrong_includes(name, text, allowed):
    folder = name.rpartition("/")[0]
    if not name.endswith(CXX) or name.startswith("tests/"):
        return []
    problems = []
    for n, line in enumerate(text.splitlines(), 1):
        included = re.match(r'#include "(([^"]+)/[^/"]+)"', line)
        if not included or included[1] in exceptions.LEAVES or included[1] in exceptions.INCLUDES.get(name, {}):
            continue
        if included[2] not in allowed[folder]:
            problems.append(
                f"{name}:{n}: {folder} may not include {included[2]} (CMakeLists.txt links no such library)"
            )
    return problems


def types_of_one_name(files):
    """A program in which two types have one name is not C++'s: the linker merges their members' code."""
    places = collections.defaultdict(list)
    for name, text in files:
        if name.endswith(CXX) and not name.startswith("tests/"):  # which are programs of their own
            for found in types(text):
                places[found].append(name)
    return [f"{found} is defined in {' and in '.join(names)}" for found, names in places.items() if len(names) > 1]


class Tree(unittest.TestCase):
    maxDiff = None

    def none(self, problems):
        self.assertFalse(problems, "\n" + "\n".join(problems))

    def each(self, check):
        self.none([problem for name, text in tree() for problem in check(name, text)])

    def test_line_length(self):
        self.each(long_lines)

    def test_ends(self):
        self.each(untidy_ends)

    def test_file_length(self):
        self.each(long_files)

    def test_functions(self):
        self.each(big_functions)

    def test_words(self):
        self.each(private_words)

    def test_includes(self):
        allowed = arrows()
        self.each(lambda name, text: wrong_includes(name, text, allowed))

    def test_types(self):
        self.none(types_of_one_name(tree()))

    def test_format(self):
        clang_format = shutil.which("clang-format-16")
        self.assertTrue(clang_format, "clang-format-16 is not installed (launch/install-packages)")
        names = [name for name, _ in tree() if name.endswith(CXX)]
        command = [clang_format, "--dry-run", "-Werror", *names]
        ended = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
        wrong = sorted(set(re.findall(r"^(\S+?):\d+:\d+: error", ended.stderr, re.M)))
        self.none([f"{name}: run clang-format-16 -i {name}" for name in wrong])
        self.assertEqual(ended.returncode, 0, ended.stderr)

    def test_no_exception_is_left_over(self):
        texts = dict(tree())
        for table in (exceptions.FUNCTION_LINES, exceptions.PARAMETERS):
            for name, known in table.items():
                self.assertIn(name, texts)
                self.assertFalse(set(known) - {f.name for f in functions(texts[name])}, name)
        for name in exceptions.FILE_LINES:
            self.assertGreater(texts[name].count("\n"), FILE_LINES, name)
        for name in exceptions.LINE_LENGTH:
            self.assertGreater(max(map(len, texts[name].splitlines())), COLUMNS, name)


class Rules(unittest.TestCase):
    """Each rule finds what breaks it."""

    def test_a_long_line(self):
        self.assertEqual(len(long_lines("a.cpp", "x" * 121 + "\n" + "x" * 120)), 1)

    def test_white_space_at_the_end(self):
        self.assertEqual(untidy_ends("a.cpp", "a\n b\n"), [])
        self.assertEqual(len(untidy_ends("a.cpp", "a \nb\r\nc")), 3)

    def test_a_long_file(self):
        self.assertEqual(len(long_files("a.cpp", "\n" * 401)), 1)
        self.assertEqual(long_files("a.cpp", "\n" * 400), [])

    def test_a_long_function(self):
        text = "namespace a {\nstruct B {\n  B(int x) : x_{x}, y_(x) {\n%s  }\n};\n}\n"
        self.assertEqual(big_functions("a.cpp", text % ("f();\n" * 59)), ["a.cpp:3: B has 61 lines"])
        self.assertEqual(big_functions("a.cpp", text % ("f();\n" * 58)), [])

    def test_many_parameters(self):
        text = "template <class A, class B>\nint f(std::map<A, B> a, int b, int c, int d, int e, int g, %s);\n"
        self.assertEqual(big_functions("a.h", text % "int h"), [])
        self.assertEqual(big_functions("a.h", text % "int h, int i"), ["a.h:1: f has 8 parameters"])

    def test_a_private_word(self):
        self.assertEqual(len(private_words("a.cpp", "// It lies beside it, and was told so.")), 2)
        self.assertEqual(private_words("a.cpp", "// besides; strip_columns(); toldness"), [])
        self.assertEqual(private_words("kernels/cuda/a.cu", "// a strip"), [])

    def test_an_arrow_against_the_link_lists(self):
        allowed = arrows()
        for name, header in (("data/a.cpp", "model/head.h"), ("kernels/devices/a.cpp", "kernels/cuda/weight.h")):
            self.assertEqual(len(wrong_includes(name, f'#include "{header}"', allowed)), 1, name)
        self.assertEqual(wrong_includes("model/a.cpp", '#include "kernels/base/error.h"', allowed), [])

    def test_types_of_one_name(self):
        seen = "namespace a::b {\ntemplate <class T>\nstruct C : D<T> { E e{1}; struct I {}; };\nenum class F { g };\n}"
        hidden = "namespace a::b {\nnamespace {\nstruct C {};\n}\nstruct H;\nvoid f(struct C c) {}\n}"
        self.assertEqual(types(seen), ["a::b::C", "a::b::F"])
        self.assertEqual(types_of_one_name([("a.h", seen), ("b.cpp", hidden)]), [])
        self.assertEqual(len(types_of_one_name([("a.h", seen), ("b.cpp", seen)])), 2)

    def test_another_format(self):
        command = ["clang-format-16", "--dry-run", "-Werror", "--assume-filename=a.cpp"]
        style = f"--style=file:{ROOT / '.clang-format'}"
        ended = subprocess.run([*command, style], input="int  a ;\n", capture_output=True, text=True)
        self.assertNotEqual(ended.returncode, 0)


class TestRun(unittest.TestCase):
    """tests/run in a tree whose steps are made up."""

    def code(self, ctest_says, ctest_code):
        with tempfile.TemporaryDirectory() as scratch:
            tree = pathlib.Path(scratch)
            made_up = {
                "tests/run": (ROOT / "tests/run").read_text(),
                "launch/install-packages": "#!/bin/sh\n",
                "launch/build": "#!/bin/sh\n",
                "bin/ctest": f"#!/bin/sh\necho '{ctest_says}'\nexit {ctest_code}\n",
            }
            for name, text in made_up.items():
                (tree / name).parent.mkdir(parents=True, exist_ok=True)
                (tree / name).write_text(text)
                (tree / name).chmod(0o755)
            (tree / "build/Testing/Temporary").mkdir(parents=True)
            (tree / "build/Testing/Temporary/LastTest.log").write_text("")
            environment = os.environ | {"PATH": f"{tree}/bin:{os.environ['PATH']}", "DROVER_OFFLINE": "1"}
            done = subprocess.run([tree / "tests/run"], capture_output=True, text=True, env=environment)
            return done.returncode, done.stdout.splitlines()[-1]

    def test_a_failed_test_fails_it(self):
        self.assertEqual(
            self.code("50% tests passed, 1 tests failed out of 2", 8), (8, "1 passed, 1 failed, 0 skipped")
        )

    def test_tests_that_pass_do_not(self):
        self.assertEqual(
            self.code("100% tests passed, 0 tests failed out of 2", 0), (0, "2 passed, 0 failed, 0 skipped")
        )


if __name__ == "__main__":
    unittest.main(verbosity=1)
