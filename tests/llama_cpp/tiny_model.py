"""Write a Llama with two layers, random weights and a tokenizer of bytes, in the format of llama.cpp.

python -m tests.llama_cpp.tiny_model tiny.gguf
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
from gguf import GGUFWriter, TokenType

from tests.llama_cpp.vocabulary import BYTES, END, SPECIAL, TOKENS, VISIBLE

CONTEXT_TOKENS = 8192
_EMBEDDING, _FEED_FORWARD, _LAYERS, _HEADS = 64, 128, 2, 2

_TEMPLATE = r"""{%- if tools %}
{{- '<|im_start|>system\nFunction signatures are within <tools></tools> XML tags:\n<tools>' }}
{%- for tool in tools %}
{{- "\n" }}
{{- tool | tojson }}
{%- endfor %}
{{- "\n</tools>\nCall one so:\n<tool_call>\n{\"name\": <name>, \"arguments\": <object>}\n</tool_call><|im_end|>\n" }}
{%- endif %}
{%- for message in messages %}
{%- if message.role == "assistant" %}
{{- '<|im_start|>assistant' }}
{%- if message.content %}{{- '\n' + message.content }}{%- endif %}
{%- for tool_call in message.tool_calls or [] %}
{%- if tool_call.function is defined %}{%- set tool_call = tool_call.function %}{%- endif %}
{{- '\n<tool_call>\n{"name": "' }}{{- tool_call.name }}{{- '", "arguments": ' }}
{{- tool_call.arguments | tojson }}{{- '}\n</tool_call>' }}
{%- endfor %}
{{- '<|im_end|>\n' }}
{%- elif message.role == "tool" %}
{{- '<|im_start|>user\n<tool_response>\n' + message.content + '\n</tool_response><|im_end|>\n' }}
{%- else %}
{{- '<|im_start|>' + message.role + '\n' + message.content + '<|im_end|>\n' }}
{%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}{{- '<|im_start|>assistant\n' }}{%- endif %}"""


def write_model(path: Path) -> None:
    """Write the model to `path`. It is the same each time."""
    writer = GGUFWriter(path, "llama")
    writer.add_name("tiny-random")
    writer.add_context_length(CONTEXT_TOKENS)
    writer.add_embedding_length(_EMBEDDING)
    writer.add_block_count(_LAYERS)
    writer.add_feed_forward_length(_FEED_FORWARD)
    writer.add_head_count(_HEADS)
    writer.add_head_count_kv(_HEADS)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_rope_dimension_count(_EMBEDDING // _HEADS)
    writer.add_vocab_size(len(TOKENS))
    writer.add_file_type(0)
    _add_tokenizer(writer)
    _add_weights(writer)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def _add_tokenizer(writer: GGUFWriter) -> None:
    kinds = [
        TokenType.UNKNOWN,
        *[TokenType.CONTROL] * (len(SPECIAL) - 1),
        *[TokenType.BYTE] * len(BYTES),
        *[TokenType.NORMAL] * len(VISIBLE),
        TokenType.USER_DEFINED,
    ]
    writer.add_tokenizer_model("llama")
    writer.add_token_list(TOKENS)
    writer.add_token_scores([0.0] * len(TOKENS))
    writer.add_token_types(kinds)
    writer.add_unk_token_id(0)
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(END)
    writer.add_add_bos_token(False)
    writer.add_add_space_prefix(False)
    writer.add_chat_template(_TEMPLATE)


def _add_weights(writer: GGUFWriter) -> None:
    generator = np.random.default_rng(0)
    e, f, vocabulary = _EMBEDDING, _FEED_FORWARD, len(TOKENS)
    ones: Any = np.ones(e, np.float32)
    shapes = {"token_embd": (vocabulary, e), "output": (vocabulary, e)}
    for layer in range(_LAYERS):
        shapes |= {f"blk.{layer}.attn_{name}": (e, e) for name in ("q", "k", "v", "output")}
        shapes |= {f"blk.{layer}.ffn_gate": (f, e), f"blk.{layer}.ffn_up": (f, e), f"blk.{layer}.ffn_down": (e, f)}
        for name in ("attn_norm", "ffn_norm"):
            writer.add_tensor(f"blk.{layer}.{name}.weight", ones)
    writer.add_tensor("output_norm.weight", ones)
    for name, shape in shapes.items():
        writer.add_tensor(f"{name}.weight", (generator.standard_normal(shape) * 0.1).astype(np.float32))


if __name__ == "__main__":
    write_model(Path(sys.argv[1]))
