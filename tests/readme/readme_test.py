"""The README against the tree: the packages it lists are called where it says, and linked, and the tests it names exist; files and scripts it names are there.
Usage: readme_test.py BUILD"""
import collections
import pathlib
import re
import subprocess
import sys
import tempfile

ROOT = pathlib.Path(__file__).resolve().parents[2]
README = (ROOT / "README.md").read_text()
Row = collections.namedtuple("Row", "package call file test")
WANTED = ["CUDA", "cuBLASLt", "cuDNN", "NCCL", "MPI", "HDF5", "yaml-cpp", "oneDNN", "GoogleTest"]
LINKED = {"CUDA": "DROVER_CUDART", "cuBLASLt": "DROVER_CUBLASLT", "cuDNN": "DROVER_CUDNN", "NCCL": "DROVER_NCCL", "MPI": "MPI::MPI_C", "HDF5": "hdf5_serial", "yaml-cpp": "yaml-cpp", "oneDNN": "DNNL_LIBRARY", "GoogleTest": "GTest::gtest_main"}


def packages():
    """Rows `| package | calls | in | test that fails without |`, their code spans unwrapped."""
    rows = re.findall(r"^\| (\S+) \| `([^`]+)` in `([^`]+)` \| `([^`]+)` \|", README, re.M)
    return [Row(*row) for row in rows]


def main(build):
    rows = {row.package: row for row in packages()}
    problems = [f"no row for {name}" for name in WANTED if name not in rows]
    cmake = "".join((ROOT / name).read_text() for name in ("CMakeLists.txt", "kernels/cuda/toolkit.cmake", "tests/CMakeLists.txt"))
    with tempfile.TemporaryDirectory() as aside:  # ctest's log in the build tree is that of the run that this is part of
        pathlib.Path(aside, "CTestTestfile.cmake").write_text(f'subdirs("{pathlib.Path(build).resolve()}")\n')
        tests = set(re.findall(r"Test +#\d+: (\S+)", subprocess.run(["ctest", "-N"], cwd=aside, capture_output=True, text=True, check=True).stdout))
    with_cuda = any(name.startswith("cuda.") for name in tests)
    for row in rows.values():
        file = ROOT / row.file
        if not file.is_file() or row.call not in file.read_text():
            problems.append(f"{row.package}: {row.file} does not call {row.call}")
        if LINKED.get(row.package, "?") not in cmake:
            problems.append(f"{row.package} is not linked")
        if row.test not in tests and (with_cuda or not row.test.startswith(("cuda.", "nccl."))):
            problems.append(f"{row.package}: there is no test {row.test}")
    for name in re.findall(r"`((?:configs|kernels|data|model|optim|trainer|launch|tests)/[\w./-]*\w/?)", README):
        if not (ROOT / name).exists():
            problems.append(f"{name} is named and does not exist")
    assert not problems, "\n".join(problems)


if __name__ == "__main__":
    main(sys.argv[1])
