"""The table that the CUDA module hands out holds its own functions. One with the name of a function of kernels/devices
would be the program's, which asks the table: without end.
Usage: module_test.py libdrover_cuda.so libdrover_devices.a"""

import subprocess
import sys
import unittest


def symbols(*command):
    return {
        line.split()[-1]
        for line in subprocess.run(("nm", *command), capture_output=True, text=True, check=True).stdout.splitlines()
        if line.strip() and not line.endswith(":")
    }


class Module(unittest.TestCase):
    def test_asks_the_program_for_nothing_that_asks_the_module(self):
        wanted, offered = symbols("-D", "--undefined-only", sys.argv[1]), symbols(
            "--defined-only", "--extern-only", sys.argv[2]
        )
        self.assertTrue(any("make_cuda_backend" in s for s in offered))
        self.assertEqual(sorted(s for s in wanted & offered if "6drover" in s), [])


if __name__ == "__main__":
    unittest.main(argv=sys.argv[:1])
