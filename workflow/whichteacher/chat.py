"""The one chat template of the project: ChatML, the same bytes in generation, training and evaluation.

The paper names no template; ChatML is that of Qwen2.5, whose base model it trains. ``{% generation %}`` marks what TRL
may put loss on. Nothing is ever stripped from an assistant's turn, so a trace keeps its reasoning.
"""

from __future__ import annotations

import difflib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from whichteacher.rule import InputError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

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


#: Conversations on which templates that differ write something else: a system message, several turns with reasoning in an
#: earlier one (which many templates strip), white space at the edges, other scripts, nothing at all.
CANONICAL: dict[str, list[dict[str, str]]] = {
    "question": [{"role": "user", "content": "What is 1 + 1?"}],
    "system": [{"role": "system", "content": "Think first."}, {"role": "user", "content": "What is 1 + 1?"}],
    "turns": [
        {"role": "user", "content": "Name a prime."},
        {"role": "assistant", "content": "<think>2 is one.</think><answer>2</answer>"},
        {"role": "user", "content": "Another."},
    ],
    "white_space": [{"role": "user", "content": "  a\n\n  b \t\n"}],
    "scripts": [{"role": "user", "content": "數學: naïve – ∑ 😀"}],
    "empty": [{"role": "user", "content": ""}],
}
#: The file of a student's folder that says how :data:`CANONICAL` was written for its training.
RENDERED = "chat_template.rendered.json"
_ANSWER = {"role": "assistant", "content": "<think>So it is.</think><answer>Yes</answer>"}


def template_bytes(tokenizer: PreTrainedTokenizerBase) -> str:
    """What a tokenizer's template makes of :data:`CANONICAL`, as JSON: the prompt that a model is asked with, by name.

    Raises :class:`InputError` where the template writes an answered conversation otherwise than as that prompt, the response
    and the end of the turn: a student would be trained on other bytes than it is asked with.
    """
    rendered = {}
    for name, turns in CANONICAL.items():
        prompt = tokenizer.apply_chat_template(turns, tokenize=False, add_generation_prompt=True)
        answered = tokenizer.apply_chat_template([*turns, _ANSWER], tokenize=False)
        expected = prompt + _ANSWER["content"] + (tokenizer.eos_token or "")
        if answered.rstrip("\n") != expected:
            raise InputError(
                f"the chat template writes an answered conversation ({name}) not as prompt, response and end token:\n"
                + _difference(expected, answered, "prompt + response + end", "template")
            )
        rendered[name] = prompt
    return json.dumps(rendered, indent=2, ensure_ascii=False) + "\n"


def check_template(tokenizer: PreTrainedTokenizerBase, trained: Path) -> None:
    """Raise :class:`InputError` with a diff where ``tokenizer`` writes :data:`CANONICAL` otherwise than the file ``trained``,
    which training left, says."""
    before, now = trained.read_text(encoding="utf-8"), template_bytes(tokenizer)
    if before != now:
        raise InputError(
            f"{trained.parent}: its chat template writes other prompts than those it was trained with: use the packages of the "
            "training, or train it again\n" + _difference(before, now, "training", "now")
        )


def _difference(before: str, now: str, *names: str) -> str:
    return "\n".join(difflib.unified_diff(before.splitlines(), now.splitlines(), *names, n=1, lineterm=""))
