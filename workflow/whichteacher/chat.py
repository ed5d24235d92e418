"""The one chat template of the project: ChatML, the same bytes in generation, training and evaluation.

The paper names no template; ChatML is that of Qwen2.5, whose base model it trains. ``{% generation %}`` marks what TRL
may put loss on. Nothing is ever stripped from an assistant's turn, so a trace keeps its reasoning.
"""

from __future__ import annotations

from collections.abc import Sequence

END_OF_TURN = "<|im_end|>"
START_OF_TURN = "<|im_start|>"
PADDING = "<|pad|>"

CHAT_TEMPLATE = (
    "{%- for message in messages %}"
    "{{- '<|im_start|>' + message['role'] + '\\n' }}"
    "{%- if message['role'] == 'assistant' %}"
    "{%- generation %}{{- message['content'] + '<|im_end|>' }}{%- endgeneration %}"
    "{%- else %}{{- message['content'] + '<|im_end|>' }}{%- endif %}"
    "{{- '\\n' }}"
    "{%- endfor %}"
    "{%- if add_generation_prompt %}{{- '<|im_start|>assistant\\n' }}{%- endif %}"
)


def messages(turns: Sequence[dict[str, str]], system_prompt: str = "", suffix: str = "") -> list[dict[str, str]]:
    """The chat messages of a query: system message if there is one, the turns, the suffix on the last user message."""
    last = dict(turns[-1])
    if suffix:
        last["content"] = f"{last['content']}\n{suffix}"
    system = [{"role": "system", "content": system_prompt}] if system_prompt else []
    return [*system, *({"role": t["role"], "content": t["content"]} for t in turns[:-1]), last]
