"""List the tokens of the tiny model: each byte, and the opening of a tool call.

A call with `CALLS_ONE_TOOL` or `CALLS_TOOLS` as its `logit_bias` makes the random model open a tool call, and the
server's grammar for tool calls does the rest.
"""

from __future__ import annotations

SPECIAL = ["<unk>", "<s>", "</s>", "<|im_start|>", "<|im_end|>"]
BYTES = [f"<0x{byte:02X}>" for byte in range(256)]
VISIBLE = ["\u2581", *map(chr, range(33, 127))]
TOKENS = [*SPECIAL, *BYTES, *VISIBLE, '<tool_call>\n{"name": "']
END = SPECIAL.index("<|im_end|>")

# The grammar forbids the end until a tool has been called. White space is not wanted between the parts of JSON.
_NO_SPACE = {TOKENS.index(name): -100 for name in ("<0x09>", "<0x0A>", "<0x0D>", "<0x20>", "\u2581")}
CALLS_ONE_TOOL = {str(token): bias for token, bias in {**_NO_SPACE, len(TOKENS) - 1: 50, END: 100}.items()}
CALLS_TOOLS = {**CALLS_ONE_TOOL, str(END): 50}
