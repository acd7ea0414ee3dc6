"""tokenizer_kinds.json: small tokenizers of every kind that Drover reads, and what the tokenizers library makes of some
hundred texts with each, as hashes of ids and of decoded texts; and what transformers puts around a text for every
post_processor. tests/data/tokenizer_kinds_test.cpp holds Drover's own against it. Usage: tokenizer_kinds.py OUT"""

import hashlib
import json
import pathlib
import random
import sys
import tempfile

from tokenizers import AddedToken, Tokenizer, models, normalizers, pre_tokenizers, trainers
from transformers import AutoTokenizer
from transformers.convert_slow_tokenizer import bytes_to_unicode

import hostile

MARK = "\u2581"
CORPUS = [
    "The harbour office opens at seven, and the lorries come one after another; the keeper writes every number down.",
    "In the evening the tide turns and the ships that wait outside come in. There is no hurry, says the pilot.",
    "Où est la gare ? Là-bas, à gauche, après le marché ; c'est à cinq minutes à pied.",
    "def f(x):\n    return {'a': x, \"b\": [1, 2, 3]}\n\nint main() {\n\treturn 0;\n}\n",
    "Zwölf Boxkämpfer jagen Viktor quer über den großen Sylter Deich. 0123456789, 2024, 1999.",
]
PIECES = [
    " ", "  ", "   ", "\n", "\n\n", "\t", "\r\n", "\u00a0", "\u2003", "\u3000", "\u0085", MARK, MARK * 2, "a", "the", " the", "The", "harbour", "x", "_", "9",
    "<s>", "</s>", "<unk>", "<0x0A>", "<0xe2>", "<0xG1>", "<tool>", "<l>", "<r>", "<lr>", "<w>", "<n>", "<nw>", "two words", "word", "words", "<s", "s>", "é",
    "e\u0301", "日本", "🙂", "👩‍👩‍👧", "\u0000", "\x07", "\x7f", "\ufeff", "\u200d", "١", "Ⅷ", "²", ".", ",", "'s", "12345", "ß", "\U0001f1eb\U0001f1f7",
]


def texts():
    draw = random.Random(20)
    found = [text for name, text in hostile.TEXTS if len(text) < 400]
    for _ in range(260):
        found.append("".join(draw.choice(PIECES) for _ in range(draw.randint(1, 9))))
    return found + [line[:60] for line in CORPUS] + [" " + line[:40] + " " for line in CORPUS]


def short(value):
    return hashlib.sha256(value.encode()).hexdigest()[:8]


def hash_of_ids(ids):
    return short(json.dumps(ids, separators=(",", ":")))


def added(id, content, special=False, normalized=False, lstrip=False, rstrip=False, single_word=False):
    return {"id": id, "content": content, "single_word": single_word, "lstrip": lstrip, "rstrip": rstrip, "normalized": normalized, "special": special}


def trained_marks():
    """Vocabulary and merges as Llama 2's: three control tokens, 256 bytes, then pieces."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend(MARK), normalizers.Replace(" ", MARK)])
    trainer = trainers.BpeTrainer(vocab_size=300, initial_alphabet=[MARK], limit_alphabet=50, show_progress=False)
    tokenizer.train_from_iterator(CORPUS * 3, trainer)
    model = json.loads(tokenizer.to_str())["model"]
    tokens = ["<unk>", "<s>", "</s>"] + [f"<0x{byte:02X}>" for byte in range(256)]
    tokens += sorted(model["vocab"], key=model["vocab"].get)
    return {token: i for i, token in enumerate(tokens)}, [list(merge) for merge in model["merges"]]


def trained_bytes():
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    trainer = trainers.BpeTrainer(vocab_size=330, initial_alphabet=sorted(bytes_to_unicode().values()), show_progress=False)
    tokenizer.train_from_iterator(CORPUS * 3, trainer)
    model = json.loads(tokenizer.to_str())["model"]
    return model["vocab"], [list(merge) for merge in model["merges"]]


CONTROL = [added(0, "<unk>", special=True), added(1, "<s>", special=True), added(2, "</s>", special=True)]
PREPEND = {"type": "Prepend", "prepend": MARK}
REPLACE = {"type": "Replace", "pattern": {"String": " "}, "content": MARK}
BACK = [{"type": "Replace", "pattern": {"String": MARK}, "content": " "}, {"type": "ByteFallback"}, {"type": "Fuse"}]
DECODER = {"type": "Sequence", "decoders": BACK + [{"type": "Strip", "content": " ", "start": 1, "stop": 0}]}


def metaspace(**fields):
    return {"type": "Metaspace", "replacement": MARK} | fields


def flagged(first, **fields):
    """Added tokens with every flag, from the id `first` on."""
    names = {"<tool>": {}, "<l>": {"lstrip": True}, "<r>": {"rstrip": True, "special": True}, "<lr>": {"lstrip": True, "rstrip": True}, "<w>": {"single_word": True},
             "<n>": {"normalized": True}, "<nw>": {"normalized": True, "single_word": True, "lstrip": True}, "two words": {"normalized": True}, "word": {"single_word": True}}
    return [added(first + i, name, **(flags | fields)) for i, (name, flags) in enumerate(names.items())]


def kinds():
    vocab, merges = trained_marks()
    bytes_vocab, bytes_merges = trained_bytes()
    size, bytes_size = len(vocab), len(bytes_vocab)
    model = {"type": "BPE", "dropout": None, "unk_token": "<unk>", "continuing_subword_prefix": None, "end_of_word_suffix": None, "fuse_unk": True,
             "byte_fallback": True, "ignore_merges": False}
    base = {"version": "1.0", "truncation": None, "padding": None, "added_tokens": CONTROL, "normalizer": None, "pre_tokenizer": None,
            "post_processor": None, "decoder": DECODER, "model": model}
    llama2 = base | {"normalizer": {"type": "Sequence", "normalizers": [PREPEND, REPLACE]}}
    without_bytes = [f"<0x{byte:02X}>" for byte in range(256)]
    normal = [token | {"normalized": True} for token in CONTROL]
    yield "llama2", "marks", llama2, []
    yield "llama2 normalized control tokens", "marks", llama2 | {"added_tokens": normal}, []
    yield "always", "marks", base | {"pre_tokenizer": metaspace(prepend_scheme="always", split=False)}, []
    yield "first", "marks", base | {"pre_tokenizer": metaspace(prepend_scheme="first", split=False)}, []
    never = {"pre_tokenizer": metaspace(prepend_scheme="never", split=False), "decoder": {"type": "Sequence", "decoders": BACK}}
    yield "never", "marks", base | never, []
    yield "split", "marks", base | {"pre_tokenizer": metaspace(prepend_scheme="first", split=True), "model": model | {"ignore_merges": True}}, []
    old = {"pre_tokenizer": metaspace(add_prefix_space=True, str_rep=MARK), "decoder": metaspace(add_prefix_space=True, str_rep=MARK)}
    yield "old metaspace", "marks", base | old | {"model": {"type": "BPE", "unk_token": "<unk>", "fuse_unk": False}}, []
    yield "metaspace never", "marks", base | {"pre_tokenizer": metaspace(prepend_scheme="never"), "decoder": metaspace(prepend_scheme="never")}, []
    yield "replace only", "marks", base | {"normalizer": REPLACE, "decoder": {"type": "Sequence", "decoders": BACK}}, []
    yield "unknown fused", "marks", llama2 | {"model": model | {"byte_fallback": False}}, without_bytes
    yield "unknown apart", "marks", llama2 | {"model": model | {"byte_fallback": False, "fuse_unk": False}}, without_bytes
    yield "no unknown", "marks", llama2 | {"model": model | {"byte_fallback": False, "unk_token": None}}, without_bytes
    yield "some bytes", "marks", llama2, without_bytes[0xE0:0xE3] + ["<0xF0>"]
    yield "llama2 added", "marks", llama2 | {"added_tokens": CONTROL + flagged(size)}, []
    yield "first added", "marks", base | {"pre_tokenizer": metaspace(prepend_scheme="first", split=False), "added_tokens": CONTROL + flagged(size)}, []
    yield "first added special", "marks", base | {"pre_tokenizer": metaspace(prepend_scheme="first"), "added_tokens": CONTROL + flagged(size, special=True)}, []
    level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}
    bytes_base = base | {"pre_tokenizer": level, "decoder": level, "added_tokens": [added(bytes_size + i, t["content"], special=True) for i, t in enumerate(CONTROL)]}
    yield "bytes of 0.13", "bytes", bytes_base | {"model": {"type": "BPE", "dropout": None, "unk_token": None, "fuse_unk": False}}, []
    yield "bytes added", "bytes", bytes_base | {"model": model | {"unk_token": None}, "added_tokens": bytes_base["added_tokens"] + flagged(bytes_size + 3)}, []


def whole(kind, vocabularies):
    name, base, tokenizer, gone = kind
    vocab, merges = vocabularies[base]
    vocab = {token: id for token, id in vocab.items() if token not in gone}
    merges = [" ".join(m) for m in merges] if "0.13" in name else merges
    return tokenizer | {"model": tokenizer["model"] | {"vocab": vocab, "merges": merges}}


def lists_of_ids():
    """To be taken modulo the number of ids."""
    draw = random.Random(21)
    lists = [[draw.randrange(10000) for _ in range(draw.randint(0, 8))] for _ in range(60)]
    return lists + [[draw.randrange(3, 259) for _ in range(draw.randint(1, 6))] for _ in range(20)]


def rows(kind, vocabularies, all_texts):
    tokenizer = Tokenizer.from_str(json.dumps(whole(kind, vocabularies)))
    out = {"plain": "", "special": "", "decoded": ""}
    encoded = []
    for text in all_texts:
        for key, parsed in (("plain", False), ("special", True)):
            tokenizer.encode_special_tokens = not parsed
            ids = tokenizer.encode(text, add_special_tokens=False).ids
            out[key] += hash_of_ids(ids)
        encoded.append(ids)
    size = max(tokenizer.get_vocab(with_added_tokens=True).values()) + 1
    # Control tokens that are looked for in normalized text are printed also where they are to be left out.
    printed = [] if "normalized" in kind[0] else encoded + [[id % size for id in ids] for ids in lists_of_ids()]
    for ids in printed:
        out["decoded"] += short("|".join(tokenizer.decode(ids, skip_special_tokens=skip) for skip in (True, False)))
    return out | {"size": size}


def frames(llama2):
    """What transformers makes of one text for post_processors and for what the configuration says against them."""
    tokens = {name: {"id": name, "ids": ids, "tokens": [name] * len(ids)} for name, ids in (("<s>", [1]), ("</s>", [2]), ("two", [1, 2]))}

    def template(*names):
        single = [{"Sequence": {"id": "A", "type_id": 0}} if name == "A" else {"SpecialToken": {"id": name, "type_id": 0}} for name in names]
        return {"type": "TemplateProcessing", "single": single, "pair": single + [{"Sequence": {"id": "B", "type_id": 1}}], "special_tokens": tokens}

    level = {"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": False, "use_regex": True}
    bert = {"type": "BertProcessing", "sep": ["</s>", 2], "cls": ["<s>", 1]}
    processors = [
        None, template("<s>", "A"), template("<s>", "A", "</s>"), template("A", "</s>"), template("A"), template("two", "<s>", "A", "</s>", "two"),
        {"type": "Sequence", "processors": [level, template("<s>", "A", "</s>")]}, {"type": "Sequence", "processors": [bert, level]}, bert,
        {"type": "RobertaProcessing", "sep": ["</s>", 2], "cls": ["<s>", 1], "trim_offsets": True, "add_prefix_space": False}, level,
    ]
    configs = [{}, {"add_bos_token": True, "add_eos_token": True}, {"add_bos_token": False, "add_eos_token": False}, {"tokenizer_class": "LlamaTokenizer", "add_bos_token": True}]
    with tempfile.TemporaryDirectory() as folder:
        for processor in processors:
            for config in configs:
                config = {"tokenizer_class": "PreTrainedTokenizerFast", "bos_token": "<s>", "eos_token": "</s>"} | config
                pathlib.Path(folder, "tokenizer.json").write_text(json.dumps(llama2 | {"post_processor": processor}))
                pathlib.Path(folder, "tokenizer_config.json").write_text(json.dumps(config))
                yield {"post_processor": processor, "config": config, "ids": AutoTokenizer.from_pretrained(folder)("a b").input_ids}


def configured(added_bytes):
    """What tokenizer_config.json changes of added tokens."""
    first = added_bytes["added_tokens"][0]
    changed = {str(t["id"]): {k: v for k, v in t.items() if k != "id"} | change for t, change in (
        (first, {"lstrip": True}), (added_bytes["added_tokens"][3], {"special": True, "rstrip": True}), (added_bytes["added_tokens"][4], {"lstrip": False}))}
    configs = [{}, {"pad_token": "<w>"}, {"eos_token": "<tool>", "bos_token": {"__type": "AddedToken", "content": "<s>", "lstrip": True}}, {"added_tokens_decoder": changed}]
    words = ["a <unk> <tool> b <l>", "<w> <s> x<tool>  y", "the <tool>"]
    with tempfile.TemporaryDirectory() as folder:
        for config in configs:
            pathlib.Path(folder, "tokenizer.json").write_text(json.dumps(added_bytes))
            pathlib.Path(folder, "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": "PreTrainedTokenizerFast"} | config))
            tokenizer = AutoTokenizer.from_pretrained(folder)
            ids = [tokenizer(text, add_special_tokens=False).input_ids for text in words]
            shown = [tokenizer.decode(row, skip_special_tokens=True) for row in ids]
            yield {"config": config, "texts": words, "ids": ids, "decoded": shown}


def word_characters():
    """Ranges of the code points that keep an added single word from standing alone."""
    tokenizer = Tokenizer(models.BPE(vocab={"a": 0}, merges=[]))
    tokenizer.add_tokens([AddedToken("<w>", single_word=True, normalized=False)])
    ranges = []
    for code in range(0x110000):
        if 0xD800 <= code < 0xE000 or tokenizer.encode("<w>" + chr(code)).ids[:1] == [1]:
            continue
        if ranges and ranges[-1][1] == code - 1:
            ranges[-1][1] = code
        else:
            ranges.append([code, code])
    return ranges


def main(out):
    all_texts, all_kinds = texts(), list(kinds())
    vocabularies = {"marks": trained_marks(), "bytes": trained_bytes()}
    named = {kind[0]: whole(kind, vocabularies) for kind in all_kinds}
    result = {
        "texts": all_texts,
        "vocabularies": {name: {"vocab": vocab, "merges": merges} for name, (vocab, merges) in vocabularies.items()},
        "kinds": [{"name": kind[0], "base": kind[1], "tokenizer": kind[2], "gone": kind[3]} | rows(kind, vocabularies, all_texts) for kind in all_kinds],
        "lists": lists_of_ids(),
        "frames": list(frames(named["llama2"])),
        "configured": list(configured(named["bytes added"])),
        "word_characters": word_characters(),
    }
    pathlib.Path(out).write_text(json.dumps(result, ensure_ascii=True, separators=(",", ":")) + "\n")


if __name__ == "__main__":
    main(*sys.argv[1:])
