"""The cleaning rules: which queries no teacher should be asked, and why.

Rules are tried in the order of :data:`RULES`; a query has the reason of the first that holds. Length and content are those
of all turns; ``empty`` and ``incomplete`` are said of the user's last message. The rules and their thresholds are our
reading of section 2.1 of the paper, which names the kinds of fault and no more.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import polars as pl
import pyarrow as pa
from ftfy.badness import is_bad

from whichteacher.patterns import TABLE, UNWANTED
from whichteacher.queries import texts_with
from whichteacher.schemas import TURNS

#: White space and the invisible characters that fill a text without saying anything.
_BLANK = r"^[\s\p{Cf}\p{Zs}]*$"
#: How many of the last characters an ending is looked for in.
_TAIL_CHARS = 64
_DETAIL_CHARS = 80
#: Texts with a table hold a pipe or one of these: asking for them first is several times faster.
_TABLE_TELLTALES = ("<t", "<T", "tabular}", "longtable}", "--+", "==+")
#: Texts of which ftfy (6.3.1) says that they were misread hold one of these: two neighbours beyond ASCII that are no CJK, or one
#: of the characters of which it needs no second one. It takes a hundred times as long to ask.
_PERHAPS_MISREAD = (
    r"[[^\x00-\x7F]--[\p{Han}\p{Hangul}\p{Hiragana}\p{Katakana}]]{2}|[\x{80}-\x{9F}Œœ\x{FFFD}]|[ÂÃ][ \x{A0}]"
)
_TAB, _DELETE = np.uint8(0x09), 0x7F


class Texts:
    """The turns of a batch of queries, flat, and what the rules ask of them more than once.

    ``turns`` is an array of TURNS; every query has at least one turn.
    """

    def __init__(self, turns: pa.Array) -> None:
        self.arrow = turns.flatten().field("content")
        self.contents: pl.Series = pl.from_arrow(self.arrow)
        ends = np.cumsum(turns.value_lengths().to_numpy(zero_copy_only=False))
        self.starts = np.concatenate(([0], ends[:-1])) if len(ends) else ends
        self.lasts = ends - 1
        self._single = len(self.contents) == len(ends)
        self.last = self.contents if self._single else self.contents.gather(self.lasts)
        self.chars = self.contents.str.len_chars()
        #: Turns that hold more than ASCII: few in many corpora, and some rules concern no others.
        self.beyond_ascii = (self.contents.str.len_bytes() != self.chars).to_numpy()

    def with_controls(self) -> np.ndarray:
        """Which turns hold an ASCII control character that is no white space."""
        return texts_with(self.arrow, lambda data: ((data < 0x20) & (data - _TAB > 4)) | (data == _DELETE))

    def any_turn(self, turns: np.ndarray) -> np.ndarray:
        """Whether something holds for one of a query's turns; ``turns`` says for which turns it does."""
        return turns if self._single or not len(turns) else np.logical_or.reduceat(turns, self.starts)

    def sum_turns(self, turns: np.ndarray) -> np.ndarray:
        """The sum of a number over each query's turns."""
        return turns if self._single or not len(turns) else np.add.reduceat(turns, self.starts)

    def of(self, query: int) -> list[str]:
        """The contents of one query."""
        return self.contents[int(self.starts[query]) : int(self.lasts[query]) + 1].to_list()


#: What a rule says of a batch: which queries break it, and for one of them what broke it.
Verdict = tuple[np.ndarray, Callable[[int], str]]


def _empty(texts: Texts, _: Mapping[str, Any]) -> Verdict:
    return texts.last.str.contains(_BLANK).to_numpy(), lambda _: "no visible character"


def _incomplete(texts: Texts, rule: Mapping[str, Any]) -> Verdict:
    stripped = texts.last.str.strip_chars()
    chars = stripped.str.len_chars()
    broken = chars < rule["min_chars"]
    tails = stripped.str.tail(_TAIL_CHARS)
    if rule["ending"]:
        broken |= tails.str.contains(rule["ending"])

    def told(query: int) -> str:
        short = chars[query] < rule["min_chars"]
        return f"{chars[query]} characters" if short else f"ends in {tails[query][-20:]!r}"

    return broken.to_numpy(), told


def _too_long(texts: Texts, rule: Mapping[str, Any]) -> Verdict:
    # Turns are counted as if one line each.
    chars = texts.sum_turns(texts.chars.to_numpy().astype(np.int64) + 1) - 1
    return chars > rule["max_chars"], lambda query: f"{chars[query]} characters"


def _broken_encoding(texts: Texts, _: Mapping[str, Any]) -> Verdict:
    """A character was lost (U+FFFD), or UTF-8 was read as another encoding, as ftfy's heuristic finds."""
    broken = np.zeros(len(texts.contents), dtype=bool)
    asked = np.flatnonzero(texts.beyond_ascii)
    asked = asked[texts.contents.gather(asked).str.contains(_PERHAPS_MISREAD).to_numpy()]
    for turn in asked.tolist():
        text = texts.contents[turn]
        broken[turn] = "\ufffd" in text or is_bad(text)

    def told(query: int) -> str:
        text = "\n".join(texts.of(query))
        return f"{text.count(chr(0xFFFD))} lost characters" if "\ufffd" in text else "UTF-8 read as another encoding"

    return texts.any_turn(broken), told


def _unicode_ratio(texts: Texts, rule: Mapping[str, Any]) -> Verdict:
    chars = texts.sum_turns(texts.chars.to_numpy().astype(np.int64))
    unwanted = np.zeros(len(texts.contents), dtype=np.int64)
    asked = np.arange(len(unwanted))
    if rule["characters"] == UNWANTED:
        asked = np.flatnonzero(texts.beyond_ascii | texts.with_controls())
    unwanted[asked] = texts.contents.gather(asked).str.count_matches(rule["characters"]).to_numpy()
    unwanted = texts.sum_turns(unwanted)
    return unwanted > rule["max_share"] * chars, lambda query: f"{unwanted[query]} of {chars[query]} characters"


def _pattern(texts: Texts, rule: Mapping[str, Any]) -> Verdict:
    pattern, contents = rule["pattern"], texts.contents
    if pattern == TABLE:
        found = (contents.str.contains("|", literal=True) | contents.str.contains_any(_TABLE_TELLTALES)).to_numpy()
        asked = np.flatnonzero(found)
        found = found.copy()
        found[asked] = contents.gather(asked).str.contains(pattern).to_numpy()
    else:
        found = contents.str.contains(pattern).to_numpy()

    def told(query: int) -> str:
        return next(match for match in pl.Series(texts.of(query)).str.extract(f"({pattern})") if match is not None)

    return texts.any_turn(found), told


#: The rules by their reason, which is their key in ``corpus.clean``, in the order they are tried.
RULES: dict[str, Callable[[Texts, Mapping[str, Any]], Verdict]] = {
    "empty": _empty,
    "incomplete": _incomplete,
    "too_long": _too_long,
    "broken_encoding": _broken_encoding,
    "unicode_ratio": _unicode_ratio,
    "url": _pattern,
    "table": _pattern,
    "image": _pattern,
}


def find_faults(turns: pa.Array, clean: Mapping[str, Any]) -> dict[int, tuple[str, str]]:
    """Reason and detail of every query that breaks a rule, by its place in ``turns`` (an array of TURNS), in order.

    ``clean`` is ``corpus.clean``: a block per rule. Rules with ``drop: false`` are not tried.
    """
    texts = Texts(turns)
    faults: dict[int, tuple[str, str]] = {}
    for reason, rule in RULES.items():
        if not clean[reason]["drop"]:
            continue
        broken, told = rule(texts, clean[reason])
        for query in np.flatnonzero(broken).tolist():
            if query not in faults:
                faults[query] = (reason, " ".join(told(query).split())[:_DETAIL_CHARS])
    return dict(sorted(faults.items()))


def check_examples(clean: Mapping[str, Any]) -> list[str]:
    """A line for every example in ``clean`` (``corpus.clean``) that its rule judges otherwise, and for every pattern that is
    no regular expression: key, value, remedy."""
    lines = []
    for reason, rule in RULES.items():
        settings, key = clean[reason], f"config key corpus.clean.{reason}"
        examples = [(False, example) for example in settings["keeps"]] + [(True, e) for e in settings["drops"]]
        texts = [e if isinstance(e, str) else e["text"] * e["times"] for _, e in examples]
        turns = pa.array([[{"role": "user", "content": text}] for text in texts], TURNS)
        try:
            broken = rule(Texts(turns), settings)[0].tolist()
        except pl.exceptions.ComputeError as error:
            fault = " ".join(str(error).split("This error occurred")[0].split())
            lines.append(f"{key}: {fault}: write it in the syntax of Rust's crate regex")
            continue
        for (wanted, _), text, found in zip(examples, texts, broken, strict=True):
            if found is not wanted:
                shown = repr(text if len(text) <= _DETAIL_CHARS else f"{text[:_DETAIL_CHARS]}...")
                does, must = ("keeps", "drops") if wanted else ("drops", "keeps")
                lines.append(f"{key}.{must} (value {shown}): the rule {does} it: change the rule or the example")
    return lines
