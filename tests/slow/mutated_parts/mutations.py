"""Files changed a little, in ways of many kinds."""

import copy
import json
import random
import re
import struct

EXTREMES = "-1 0 1 2147483648 -2147483649 9223372036854775807 18446744073709551616 1e309 -1e309 1e-400".split()
EXTREMES += ["NaN", "null", "true", '""', "[]", "{}", '"a"', "[[]]", "1.5", "-0", "0x10", "010", "9" * 400]
VALUES = [None, True, False, 0, -1, 1, 1.5, 2**31, 2**53, 2**63, 2**64, 1e308, -1e308, float("nan"), "", "a", "\u0000"]
VALUES += ["é" * 50, "x" * 5000, "../../etc/passwd", "<|im_end|>", "{{ 1 }}", [], {}, [[]], [1, 2], {"a": 1}]
VALUES += [[0] * 2000]
JINJA = """{% %} {{ }} {# #} {%- -%} for in if elif else endif endfor set endset macro endmacro namespace( loop.index0
messages | ~ ( ) [ ] . , : == != not and or is defined tojson trim length first last join(',') range(999999999) none
range(0,10,0) * % // ** 'x' "\\n" 9999999999999999999 1e400 true raise_exception('a') strftime_now('%Y') generation
endgeneration [::-1] [1:] add_generation_prompt message['content'] message.role .items() .split('a') .strip() break
''*1000000 continue""".split()


def chunk(draw, data, most=64):
    begin = draw.randrange(len(data) + 1)
    return begin, min(len(data), begin + draw.randint(1, most))


def flip(draw, data):
    data = bytearray(data)
    for _ in range(draw.randint(1, 8)):
        if data:
            data[draw.randrange(len(data))] ^= 1 << draw.randrange(8)
    return bytes(data)


def overwrite(draw, data):
    begin, end = chunk(draw, data, 8)
    return data[:begin] + bytes([draw.choice((0, 255, 127, 128, 10, 32))]) * (end - begin) + data[end:]


def cut(draw, data):
    return data[: draw.randrange(len(data) + 1)]


def remove(draw, data):
    begin, end = chunk(draw, data)
    return data[:begin] + data[end:]


def insert(draw, data):
    begin = draw.randrange(len(data) + 1)
    return data[:begin] + draw.randbytes(draw.randint(1, 64)) + data[begin:]


def duplicate(draw, data):
    begin, end = chunk(draw, data, 256)
    return data[:end] + data[begin:end] * draw.choice((1, 1, 2, 50)) + data[end:]


def swap(draw, data):
    (a, b), (c, d) = sorted((chunk(draw, data), chunk(draw, data)))
    return data if b > c else data[:a] + data[c:d] + data[b:c] + data[a:b] + data[d:]


def number(draw, data):
    """A number becomes an extreme one, or something else."""
    found = list(re.finditer(rb"-?\d+(\.\d+)?(e[+-]?\d+)?", data[:200000]))
    if not found:
        return flip(draw, data)
    at = draw.choice(found)
    return data[: at.start()] + draw.choice(EXTREMES).encode() + data[at.end() :]


BYTES = [flip, overwrite, cut, remove, insert, duplicate, swap]


def lines(draw, data):
    """Whole lines removed, doubled, exchanged or indented."""
    rows = data.splitlines(keepends=True)
    if len(rows) < 2:
        return flip(draw, data)
    i, j = draw.randrange(len(rows)), draw.randrange(len(rows))
    way = draw.randrange(4)
    if way == 0:
        del rows[i]
    elif way == 1:
        rows.insert(j, rows[i])
    elif way == 2:
        rows[i], rows[j] = rows[j], rows[i]
    else:
        rows[i] = draw.choice((b"  ", b"\t", b"- ", b"? ", b"&a ", b"*a ", b"!!int ", b"#")) + rows[i]
    return b"".join(rows)


def nodes(value, found):
    """Every (container, key) of a JSON value."""
    for key in value if isinstance(value, dict) else range(len(value)) if isinstance(value, list) else ():
        found.append((value, key))
        nodes(value[key], found)
    return found


def change(draw, value):
    """One change of a JSON value, in place or as a new one."""
    found = nodes(value, [])
    if not found:
        return copy.deepcopy(draw.choice(VALUES))
    inside, key = draw.choice(found)
    way = draw.randrange(7)
    if way == 0:
        del inside[key]
    elif way == 1:
        other, name = draw.choice(found)
        inside[key] = copy.deepcopy(other[name])
    elif way == 2 and isinstance(inside, dict):
        inside[draw.choice((key + "s", key.upper(), "", "é", key[:-1]))] = inside.pop(key)
    elif way == 3 and isinstance(inside, dict):
        inside[draw.choice(("a", "version", "type", "name", "extra_field", "dtype"))] = copy.deepcopy(
            draw.choice(VALUES)
        )
    elif way == 4:
        deep = draw.choice((2, 60, 2000))
        for _ in range(deep):
            inside[key] = [inside[key]] if draw.random() < 0.5 else {"a": inside[key]}
            if deep > 900:  # deeper than Python would write
                break
    elif way == 5 and isinstance(inside, list):
        inside.extend(copy.deepcopy(inside[key]) for _ in range(draw.choice((1, 2, 300))))
    else:
        inside[key] = copy.deepcopy(draw.choice(VALUES))
    return value


def fields(draw, data):
    """A JSON text with one to three changes; its keys may stand twice."""
    try:
        value = json.loads(data)
    except ValueError:
        return number(draw, data)
    for _ in range(draw.choice((1, 1, 1, 2, 3))):
        value = change(draw, value)
    text = json.dumps(value, ensure_ascii=draw.random() < 0.5, indent=draw.choice((None, 1)))
    if draw.random() < 0.05 and text.startswith("{"):
        text = text[:-1].rstrip() + ', "a": 1, "a": 2}'
    return text.encode("utf-8", "surrogatepass")


def row_fields(draw, data):
    """Some line of a JSONL file, changed."""
    rows = data.splitlines()
    at = draw.randrange(len(rows))
    rows[at] = fields(draw, rows[at]).replace(b"\n", b" ")
    return b"\n".join(rows) + b"\n"


def header(draw, data):
    """The header of a safetensors file, whose length fits again."""
    size = struct.unpack("<Q", data[:8])[0]
    text = draw.choice((fields, number, flip, duplicate))(draw, data[8 : 8 + size])
    return struct.pack("<Q", len(text)) + text + data[8 + size :]


def early(draw, data):
    """As the others, but near the beginning, where a binary file says what it is."""
    most = min(len(data), draw.choice((16, 256, 4096)))
    return draw.choice(BYTES)(draw, data[:most]) + data[most:]


def template(draw, data):
    """Words of the language in other places."""
    text = data.decode("utf-8", "replace")
    for _ in range(draw.randint(1, 4)):
        at = draw.randrange(len(text) + 1)
        end = min(len(text), at + draw.choice((0, 0, 1, 5)))
        text = text[:at] + draw.choice((" ", "")) + draw.choice(JINJA) + draw.choice((" ", "")) + text[end:]
    return text.encode()


def mutated(draw, data, ways):
    """One to three changes; never what it was."""
    result = data
    for _ in range(8):
        for _ in range(draw.choice((1, 1, 1, 2, 3))):
            result = draw.choice(ways)(draw, result or b"\0")
        if result != data:
            return result
    return flip(random.Random(0), data)
