"""The pages against the tree: README.md, the README of every folder, and .github/*.md.

Files, links, pictures, tests, verbs and recipes that a page names are there; the packages of tests/README.md are called
where it says, and linked; README.md is short. Usage: readme_test.py BUILD"""

import collections
import pathlib
import re
import runpy
import subprocess
import sys
import tempfile
import xml.etree.ElementTree

ROOT = pathlib.Path(__file__).resolve().parents[2]
PAGES = sorted(
    [*ROOT.glob("README.md"), *ROOT.glob("*/README.md"), *ROOT.glob("*/*/README.md"), *ROOT.glob(".github/**/*.md")]
)
FOLDERS = "configs|data|kernels|launch|model|optim|tests|trainer|\\.github|\\.ci"
README_LINES, COLUMNS = 110, 120
Row = collections.namedtuple("Row", "package call file test")
LINKED = {
    "CUDA": "DROVER_CUDART",
    "cuBLASLt": "DROVER_CUBLASLT",
    "cuDNN": "DROVER_CUDNN",
    "NCCL": "DROVER_NCCL",
    "MPI": "MPI::MPI_C",
    "HDF5": "hdf5_serial",
    "yaml-cpp": "yaml-cpp",
    "zlib": "ZLIB::ZLIB",
    "xgrammar": "drover_xgrammar",
    "oneDNN": "DNNL_LIBRARY",
    "Boost": "find_package(Boost",
    "GoogleTest": "GTest::gtest_main",
}


def packages():
    """Rows `| package | call in file | test that fails without |` of tests/README.md, their code spans unwrapped."""
    page = (ROOT / "tests" / "README.md").read_text()
    return [Row(*row) for row in re.findall(r"^\| (\S+) \| `([^`]+)` in `([^`]+)` \| `([^`]+)` \|", page, re.M)]


def ctest_names(build):
    # Elsewhere than in the build tree, where ctest's log is that of the run that this is part of.
    with tempfile.TemporaryDirectory() as aside:
        pathlib.Path(aside, "CTestTestfile.cmake").write_text(f'subdirs("{pathlib.Path(build).resolve()}")\n')
        listed = subprocess.run(["ctest", "-N"], cwd=aside, capture_output=True, text=True, check=True).stdout
    return set(re.findall(r"Test +#\d+: (\S+)", listed))


def code_of(text):
    """Every code block and code span of a page; a | that a table escapes is a plain one."""
    blocks = re.findall(r"^```\w*\n(.*?)^```", text, re.M | re.S)
    spans = re.findall(r"`([^`]+)`", re.sub(r"^```.*?^```", "", text, flags=re.M | re.S))
    return [re.sub(r"\s+", " ", span).replace("\\|", "|") for span in spans] + [
        line for b in blocks for line in b.splitlines()
    ]


def anchors_of(page):
    """The anchors of a page's headings, as GitHub makes them."""
    text = re.sub(r"^```.*?^```", "", page.read_text(), flags=re.M | re.S)
    headings = re.findall(r"^#+ (.*)$", text, re.M)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def wrong_paths(code):
    for name in re.findall(rf"(?<![\w./$}}-])((?:{FOLDERS})/[\w.*/-]*[\w*/])", code):
        if (
            "NAME" not in name and "FOLDER" not in name and not list(ROOT.glob(name.rstrip("/")))
        ):  # those are placeholders
            yield f"{name} is named and does not exist"


def wrong_tests(code, tests):
    """What is asked of ctest, of a GoogleTest program or of a Python test must select at least one test."""
    with_cuda = any(name.startswith("cuda.") for name in tests)
    for quoted, plain in re.findall(r'(?:ctest|tests/run)\b[^#]*? -R (?:"([^"]+)"|(\S+))', code):
        pattern = quoted or plain
        if not any(re.search(pattern, name) for name in tests) and (with_cuda or not re.search("cuda|nccl", pattern)):
            yield f"ctest -R {pattern} matches no test"
    for program, pattern in re.findall(r"/(\w+)_tests --gtest_filter=(\S+)", code):
        pattern = re.escape(f"{program}.{pattern}").replace(r"\*", ".*")
        if not any(re.fullmatch(pattern, name) for name in tests):
            yield f"{code}: no such test"
    for file, case, method in re.findall(r"(tests/e2e/\w+_test\.py) \S+ (\w+)\.(\w+)", code):
        text = (ROOT / file).read_text()
        if f"class {case}(" not in text or f"def {method}(" not in text:
            yield f"{code}: no such test"


def wrong_verbs(code):
    for verb in re.findall(r"(?<![-\w.])drover ([a-z][a-z-]*)(?=[\s`]|$)", code):
        source = ROOT / "launch" / "verbs" / f"{verb.replace('-', '_')}.cpp"
        if not (source.is_file() and f'add_subcommand("{verb}"' in re.sub(r"\(\s+", "(", source.read_text())):
            yield f"drover {verb} is not a verb"


def wrong_links(page, text):
    outside_code = re.sub(r"^```.*?^```|`[^`]*`", "", text, flags=re.M | re.S)
    for target in re.findall(r"\]\(([^)]+)\)", outside_code) + re.findall(r'(?:src|srcset)="([^"]+)"', outside_code):
        if re.match(r"\w+:", target):
            continue
        name, _, anchor = target.partition("#")
        file = page.parent / name if name else page
        if not file.exists():
            yield f"the link {target} leads nowhere"
        elif anchor and anchor not in anchors_of(file):
            yield f"the link {target} names no heading"
        elif file.suffix == ".svg" and re.search("<script|on\\w+=", file.read_text()):
            yield f"{name} holds a script"
        elif file.suffix == ".svg":
            xml.etree.ElementTree.parse(file)


def wrong_packages(tests):
    rows = {row.package: row for row in packages()}
    yield from (f"no row for {name}" for name in LINKED if name not in rows)
    cmake = "".join(
        (ROOT / name).read_text() for name in ("CMakeLists.txt", "kernels/cuda/toolkit.cmake", "tests/CMakeLists.txt")
    )
    with_cuda = any(name.startswith("cuda.") for name in tests)
    for row in rows.values():
        file = ROOT / row.file
        if not file.is_file() or row.call not in file.read_text():
            yield f"{row.package}: {row.file} does not call {row.call}"
        if LINKED.get(row.package, "?") not in cmake:
            yield f"{row.package} is not linked"
        if row.test not in tests and (with_cuda or not row.test.startswith(("cuda.", "nccl."))):
            yield f"{row.package}: there is no test {row.test}"
    yield from runpy.run_path(str(ROOT / "tests" / "slow" / "packages"))["wrong_removals"]()


def wrong_size(text):
    """README.md is read in one go: a limit on its lines, and on the columns of all that is not a row of a table."""
    lines = text.splitlines()
    if len(lines) > README_LINES:
        yield f"{len(lines)} lines; at most {README_LINES}"
    for number, line in enumerate(lines, 1):
        if len(line) > COLUMNS and not line.startswith("|"):
            yield f"line {number} has {len(line)} columns; at most {COLUMNS}"


def main(build):
    tests = ctest_names(build)
    problems = [f"tests/README.md: {wrong}" for wrong in wrong_packages(tests)]
    problems += [f"README.md: {wrong}" for wrong in wrong_size((ROOT / "README.md").read_text())]
    for page in PAGES:
        text = page.read_text()
        found = list(wrong_links(page, text))
        for code in code_of(text):
            found += [*wrong_paths(code), *wrong_tests(code, tests), *wrong_verbs(code)]
        problems += [f"{page.relative_to(ROOT)}: {wrong}" for wrong in found]
    assert not problems, "\n".join(problems)
    print(f"{len(PAGES)} pages fit the tree")


if __name__ == "__main__":
    main(sys.argv[1])
