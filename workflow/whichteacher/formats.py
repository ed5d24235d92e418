r"""One format for the text of every teacher: what the control ``format_normalised`` rewrites, and nothing else.

The rules, in their order, each applied to all teachers alike:

1. Line ends are ``\n``, spaces are plain, runs of spaces inside a line are one, lines end without white space, and at most
   one line in a row is empty.
2. ``\( \)`` is ``$ $`` and ``\[ \]`` is ``$$ $$``, without spaces inside the signs.
3. A heading loses its marks, and so does bold text. A line that is a rule goes.
4. Items of a list begin with ``- `` (for ``*`` and bullets) or ``1. `` (for ``1)`` and ``(1)``).
5. Thinking loses an opening such as "Okay, so"; an answer one such as "Certainly!". The next letter is a capital.

Code blocks, code in a line and boxed answers are never touched, byte for byte. What could be a sum or a power (a ``+`` or a
digit after the mark of a list, ``2**3``) is left alone.
"""

from __future__ import annotations

import re

#: Blocks as the verifier of code sees them, one that never closes included; code in a line.
_CODE = re.compile(r"^[ \t]*(```|~~~)[^\n]*\n.*?(?:^[ \t]*\1[ \t]*$|\Z)|```.*?```|`[^`\n]+`", re.MULTILINE | re.DOTALL)
_BOX = re.compile(r"\\+(?:f?boxed|fbox)\s*\{")
_BRACE = re.compile(r"\\.|[{}]", re.DOTALL)
#: What stands in for protected text meanwhile: private-use characters round its number.
_OPEN, _CLOSE = "\ue000", "\ue001"
_HELD = re.compile(f"{_OPEN}(\\d+){_CLOSE}")

_SPACES = re.compile(r"[\u00a0\u2000-\u200a\u202f\u205f\u3000\t]")
_RULES: tuple[tuple[re.Pattern[str], str], ...] = (
    (re.compile(r"\r\n?"), "\n"),
    (re.compile(r"(?<=\S) {2,}"), " "),
    (re.compile(r" +$", re.MULTILINE), ""),
    # A backslash before it makes `\\[` a line break of a matrix.
    (re.compile(r"(?<!\\)\\\(\s*(.*?)\s*(?<!\\)\\\)"), r"$\1$"),
    (re.compile(r"(?<!\\)\\\[\s*(.*?)\s*(?<!\\)\\\]", re.DOTALL), r"$$\1$$"),
    (re.compile(r"^ {0,3}#{1,6} +(.*?)(?: +#+)?$", re.MULTILINE), r"\1"),
    (re.compile(r"^ {0,3}(?:-{3,}|\*{3,}|_{3,})$", re.MULTILINE), ""),
    (re.compile(r"(?<![\w*\\])\*\*(?=[^\s*])([^*\n]*?[^\s*\\])\*\*(?![\w*])"), r"\1"),
    (re.compile(r"^( *)(?:\*(?= +\D)|[\u2022\u25e6\u25aa\u2023]) +", re.MULTILINE), r"\1- "),
    (re.compile(r"^( *)\(?(\d{1,3})\) +(?=[^\W\d_])", re.MULTILINE), r"\1\2. "),
    (re.compile(r"\n{3,}"), "\n\n"),
)
_THINKING_OPENING = re.compile(
    r"\A(?:(?:okay|ok|alright|all right|hmm+)(?:[,.!\u2026]+ +| +)(?:so,? +)?|(?:so|well|right|sure|now)[,!] +)"
    r"(?=[^\W\d_])",
    re.IGNORECASE,
)
_ANSWER_OPENING = re.compile(
    r"\A(?:(?:sure|certainly|of course|absolutely|great question|good question)[,!.]+ +)(?=[^\W\d_])", re.IGNORECASE
)


def closed_boxes(text: str) -> list[tuple[int, int]]:
    r"""Where every ``\boxed{}`` whose braces close stands in ``text``, from start to end."""
    spans = []
    for opened in _BOX.finditer(text):
        depth = 1
        for brace in _BRACE.finditer(text, opened.end()):
            depth += {"{": 1, "}": -1}.get(brace[0], 0)
            if not depth:
                spans.append((opened.start(), brace.end()))
                break
    return spans


def protected(text: str) -> list[tuple[int, int]]:
    r"""Where code and closed ``\boxed{}`` stand in ``text``, from start to end; none inside another."""
    code = [match.span() for match in _CODE.finditer(text)]
    spans: list[tuple[int, int]] = []
    for start, end in sorted(code + closed_boxes(text)):
        if spans and start < spans[-1][1]:
            spans[-1] = (spans[-1][0], max(end, spans[-1][1]))
        else:
            spans.append((start, end))
    return spans


def _once(text: str, opening: re.Pattern[str]) -> str:
    text = _SPACES.sub(" ", text)
    for pattern, replacement in _RULES:
        text = pattern.sub(replacement, text)
    text = text.strip()
    if opened := opening.match(text):
        text = text[opened.end()].upper() + text[opened.end() + 1 :]
    return text


def _normalised(text: str, opening: re.Pattern[str]) -> str:
    """``text`` under all rules until none changes it; as it was where that would touch protected or empty text."""
    if _OPEN in text or _CLOSE in text:
        return text
    spans = protected(text)
    kept = [text[start:end] for start, end in spans]
    pieces, last = [], 0
    for number, (start, end) in enumerate(spans):
        pieces += (text[last:start], f"{_OPEN}{number}{_CLOSE}")
        last = end
    changed, before = "".join([*pieces, text[last:]]), None
    while changed != before:
        before, changed = changed, _once(changed, opening)
    restored = _HELD.sub(lambda match: kept[int(match[1])], changed)
    same = [restored[start:end] for start, end in protected(restored)] == kept
    return restored if restored.strip() and same else text


def normalise_thinking(text: str) -> str:
    """A thinking part under the rules of this module."""
    return _normalised(text, _THINKING_OPENING)


def normalise_answer(text: str, category: str) -> str:
    """An answer part under the rules of this module, such that its verdict stays what it is.

    Instructions may ask for the very things that would change, and a short answer without a box is compared as it stands:
    the answers of ``instruction_following`` are kept, and those of ``math`` and ``science`` that box nothing.
    """
    if category == "instruction_following" or (category in ("math", "science") and not closed_boxes(text)):
        return text
    return _normalised(text, _ANSWER_OPENING)
