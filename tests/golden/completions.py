"""completions.jsonl: Llama 3's ids of prompts with their completions as one text, and how many tokens of it are the prompt's.
Usage: completions.py WHEELS OUT"""
import json
import pathlib
import sys

from transformers.convert_slow_tokenizer import bytes_to_unicode

import hostile
import tokenizers_of
from tokenizers_of import encode

BYTES = {c: b for b, c in bytes_to_unicode().items()}


def whole_tokens(tokenizer, ids, border):
    """Those that end at `border` bytes of the text or before."""
    count = end = 0
    for i in ids:
        end += len(bytes(BYTES[c] for c in tokenizer.id_to_token(i)))
        if end > border:
            break
        count += 1
    return count


def row(tokenizer, prompt, completion):
    ids, alone = encode(tokenizer, prompt + completion, False), encode(tokenizer, prompt, False)
    given = whole_tokens(tokenizer, ids, len(prompt.encode()))
    # trl masks as many tokens as the prompt has by itself, and warns where those are not the first ones of the text.
    agrees = ids[: len(alone)] == alone
    assert not agrees or given == len(alone), (prompt, completion)
    return {"ids": ids, "given": given, "as_trl": agrees}


def rows(wheels):
    tokenizer = tokenizers_of.llama3(wheels)
    for name, text in hostile.TEXTS:
        if not 2 <= len(text) <= 400:
            continue
        space = text.find(" ", len(text) // 3)  # where people cut
        for cut in sorted({len(text) // 2, space} - {-1, 0}):
            prompt, completion = text[:cut], text[cut:]
            yield {"name": f"{name}, {cut}", "prompt": prompt, "completion": completion} | row(tokenizer, prompt, completion)


def make(wheels, out):
    lines = [json.dumps(r, ensure_ascii=True, separators=(",", ":")) for r in rows(wheels)]
    (out / "completions.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")


if __name__ == "__main__":
    make(pathlib.Path(sys.argv[1]), pathlib.Path(sys.argv[2]))
