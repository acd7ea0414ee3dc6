"""Where tests/gpu/run works: in the first folder with room for what its stages write, or nowhere, saying why."""

import importlib.machinery
import importlib.util
import pathlib
import sys
import tempfile
import unittest

sys.dont_write_bytecode = True
path = str(pathlib.Path(__file__).resolve().parent / "run")
loader = importlib.machinery.SourceFileLoader("gpu_run", path)
gpu = importlib.util.module_from_spec(importlib.util.spec_from_loader("gpu_run", loader))
loader.exec_module(gpu)


class Room(unittest.TestCase):
    def test_the_first_folder_with_room(self):
        room = {"/dev/shm/drover-gpu": 20.0}
        found = gpu.working_folder(None, ["train8b", "decode"], "cuda", lambda work: room.get(str(work), 500.0))
        self.assertEqual(str(found), "/dev/shm/drover-gpu")
        found = gpu.working_folder(None, ["models"], "cuda", lambda work: room.get(str(work), 500.0))
        self.assertNotEqual(str(found), "/dev/shm/drover-gpu")

    def test_no_room_is_said(self):
        for asked in (None, "/somewhere/else"):
            with self.assertRaises(gpu.Failure) as caught:
                gpu.working_folder(asked, ["shapes"], "cuda", lambda work: 3.5)
            self.assertIn("has 3.5 of the 20.8 GB", str(caught.exception))
            self.assertIn("--work", str(caught.exception))

    def test_models_that_are_there_need_no_room(self):
        with tempfile.TemporaryDirectory() as folder:
            work = pathlib.Path(folder)
            self.assertAlmostEqual(gpu.missing_gb(work, ["decode", "peer_eager"], "cuda"), 17.1)
            (work / "models" / "8b").mkdir(parents=True)
            (work / "models" / "8b" / "model.safetensors.index.json").write_text("{}")
            self.assertEqual(gpu.missing_gb(work, ["decode", "peer_eager"], "cuda"), 1.0)
            self.assertEqual(gpu.missing_gb(work, ["parity"], "cpu"), 1.0)
        self.assertGreater(gpu.free_gb(pathlib.Path("/nowhere/at/all")), 0)


unittest.main()
