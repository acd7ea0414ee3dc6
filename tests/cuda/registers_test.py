"""Every CUDA kernel's registers, stack, local memory and spills, as ptxas reported them when it compiled. None may
spill or use local memory.
Usage: registers_test.py FOLDER_WITH_.ptxas_FILES SUMMARY_FILE"""

import pathlib
import re
import subprocess
import sys

folder, summary = pathlib.Path(sys.argv[1]), pathlib.Path(sys.argv[2])
kernels = {}
for report in sorted(folder.rglob("*.ptxas")):
    name = None
    for line in report.read_text(errors="replace").splitlines():
        if found := re.search(r"Compiling entry function '(\w+)'", line):
            name = found[1]
            kernels[name] = {"file": report.name.removesuffix(".o.ptxas")}
        elif name and (
            found := re.search(r"(\d+) bytes stack frame, (\d+) bytes spill stores, (\d+) bytes spill loads", line)
        ):
            kernels[name].update(stack=int(found[1]), spilled=int(found[2]) + int(found[3]))
        elif name and (found := re.search(r"Used (\d+) registers", line)):
            kernels[name]["registers"] = int(found[1])
            name = None
assert kernels, f"{folder} holds no report of ptxas: was the CUDA backend compiled?"
incomplete = [name for name, k in kernels.items() if not {"stack", "spilled", "registers"} <= k.keys()]
assert not incomplete, f"ptxas said too little of {incomplete}"
plain = subprocess.run(
    ["c++filt"], input="\n".join(kernels), capture_output=True, text=True, check=True
).stdout.splitlines()
lines, bad = [], []
for name, (_, k) in sorted(zip(plain, kernels.items()), key=lambda row: -row[1][1]["registers"]):
    lines.append(
        f"{k['registers']:>3} registers  {k['stack']} bytes of stack  {k['spilled']} bytes spilled  {k['file']}: {name}"
    )
    if k["stack"] or k["spilled"]:
        bad.append(lines[-1])
most = max(k["registers"] for k in kernels.values())
head = f"{len(kernels)} CUDA kernels for sm_90a: at most {most} registers, {len(bad)} with spills or local memory"
summary.write_text("\n".join([head, *lines]) + "\n")
print(head)
assert not bad, "spills or local memory:\n" + "\n".join(bad)
