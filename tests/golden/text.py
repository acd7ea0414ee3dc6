"""texts.jsonl: ids of hostile text; chat.jsonl: ids and trained-token masks of dialogs."""
import json

import tiktoken
from tiktoken.load import load_tiktoken_bpe

import hostile
import tokenizers_of
from tokenizers_of import ChatFormat, encode

LLAMA3_PATTERN = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"


def meta_encoding(wheels):
    ranks = load_tiktoken_bpe(str(wheels / "llama_models" / "llama3" / "tokenizer.model"))
    specials = {s: len(ranks) + i for i, s in enumerate(tokenizers_of.LLAMA3_SPECIALS)}
    return tiktoken.Encoding("llama3", pat_str=LLAMA3_PATTERN, mergeable_ranks=ranks, special_tokens=specials)


def text_rows(wheels):
    smollm2, llama3, meta = tokenizers_of.smollm2(wheels), tokenizers_of.llama3(wheels), meta_encoding(wheels)
    assert encode(llama3, "This is a test sentence.", False) == [2028, 374, 264, 1296, 11914, 13]
    assert len({name for name, _ in hostile.TEXTS}) == len(hostile.TEXTS)
    for name, text in hostile.TEXTS:
        row = {"name": name, "text": text}
        for key, tokenizer, is_special in (("smollm2", smollm2, lambda i: i < 17), ("llama3", llama3, lambda i: i >= 128000)):
            plain, special = encode(tokenizer, text, False), encode(tokenizer, text, True)
            assert not any(map(is_special, plain)), name
            row[key] = {"plain": plain} | ({"special": special} if special != plain else {})
        assert row["llama3"]["plain"] == meta.encode(text, allowed_special=set(), disallowed_special=()), name
        assert row["llama3"].get("special", row["llama3"]["plain"]) == meta.encode(text, allowed_special="all"), name
        yield row


def chat_rows(wheels):
    meta = meta_encoding(wheels)
    for name, messages in hostile.DIALOGS:
        for template in ("smollm2", "chatml", "llama3", "llama3.1"):
            chat = ChatFormat.of(template, wheels)
            for prompt in (False, True):
                if prompt and messages[-1]["role"] == "assistant":
                    continue
                row = chat.render(messages, prompt)
                if not any("<|" in m["content"] for m in messages):
                    assert row["ids"] == encode(chat.tokenizer, chat.text(messages, prompt), True), (name, template)
                if template == "llama3":
                    pieces = [128000]
                    for role, content in [(m["role"], m["content"].strip()) for m in messages] + [("assistant", None)] * prompt:
                        pieces += [128006] + meta.encode_ordinary(role) + [128007] + meta.encode_ordinary("\n\n")
                        pieces += meta.encode_ordinary(content) + [128009] if content is not None else []
                    assert row["ids"] == pieces, name
                assert any(row["trained"]) == any(m["role"] == "assistant" for m in messages)
                dated = {"date": tokenizers_of.DATE} if template == "llama3.1" else {}
                yield {"name": name, "template": template, "tokenizer": "llama3" if "llama3" in template else "smollm2"} | dated | {
                    "messages": messages, "add_generation_prompt": prompt} | row


def make(wheels, out):
    for file, rows in (("texts.jsonl", text_rows(wheels)), ("chat.jsonl", chat_rows(wheels))):
        lines = [json.dumps(row, ensure_ascii=False, separators=(",", ":")) for row in rows]
        # U+2028, U+0085 and the like stay escaped: some readers end a line there.
        text = "\n".join(lines)
        for c in "\u0085\u2028\u2029\x7f":
            text = text.replace(c, f"\\u{ord(c):04x}")
        (out / file).write_text(text + "\n", encoding="utf-8")
