"""Token ids of texts: the one place where the pipeline turns text into tokens that it counts.

tiktoken runs byte-level BPE an order of magnitude faster than the tokenizers library. So the vocabulary, the merges and the
splitting pattern of a tokenizer's own file are loaded into it wherever they are of a kind that it knows, and its ids are
compared with the tokenizer's own: on awkward texts and on the whole vocabulary when it is loaded, and on the first texts that
it is given. Where they differ, and for every other kind, the tokenizer itself does the work, and the log says so.
"""

from __future__ import annotations

import itertools
import json
import re
import unicodedata
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from whichteacher.rule import InputError
from whichteacher.tokenizer import open_tokenizer

if TYPE_CHECKING:
    from tiktoken import Encoding
    from transformers import PreTrainedTokenizerBase

#: Text that the tokenizer itself encodes together, in characters: a token takes some hundred bytes until it is counted.
_ENCODED_CHARACTERS = 2**18
#: Tokens of a vocabulary in one text.
_WORDS = 4096
#: The first texts that are encoded both ways, in characters.
_COMPARED_CHARACTERS = 2**17
#: What ByteLevel splits with where no other pattern is given: GPT-2's.
_GPT2_PATTERN = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
#: What tiktoken's engine has to backtrack for: looking around, atomic groups, possessive repeats, references back.
_HARD = re.compile(r"\(\?(?:[=!>]|<[=!])|(?:[*+?]|\{\d+,?\d*\})\+|\\[1-9]")
#: Spaces, line ends and contractions where patterns part; scripts, marks and digits where Unicode versions do; marks that
#: NFC joins; look-alikes of special tokens.
_AWKWARD = (
    "",
    " ",
    "\n",
    " \n \n\n\t x  y   z \r\n\r\n  ",
    "it's IT'S we'Re 'ſ 'K don't'll 12'34 'tis ''''s",
    "0123456789 ١٢٣ ½ ⅷ ² 1,234.5e-6 0x1F",
    "naïve e\u0301 A\u030a \u212b \u1e9b\u0323 \uac00\u11a8 \u0344 \ufb01",
    "日本語のテキスト、中文。 한국어 العربية עברית हिन्दी ไทย",
    "🙂👩‍👩‍👧‍👦🏳️‍🌈 \U0001f9ff\U00010348 \u200b\u200d\ufeff\u00ad\u2028\u2029\u0085\u00a0\u3000x",
    "∑ᵢ xᵢ² ≤ √2·π ⟹ \\frac{1}{2}\\boxed{\\text{a}} $$x^{2}$$",
    "def f(x):\n\treturn  x**2 # ok\n\n\n    \t  pass\n",
    "<think>a</think><answer>b</answer> < think > <think <|im_start|>user\n<|im_end|><|endoftext|><|",
    "_" * 300 + "=" * 77 + "-" * 65 + " " * 130 + "a" * 200 + "\n" * 90 + "!?" * 60 + "8" * 50,
    "\x00\x01\x1f\x7f\x80\u07ff\ud7ff\ue000\uffff\U0010ffff",
)


class Unfit(Exception):
    """Why a tokenizer cannot run in tiktoken; ends a sentence that begins with "this tokenizer"."""


class Tokenizer:
    """Token ids of texts, as the tokenizer ``own`` gives them without special tokens around them.

    ``name`` is what the log calls it.
    """

    def __init__(self, own: PreTrainedTokenizerBase, name: str) -> None:
        self.own, self._name = own, name
        self._compared = 0
        self._fast: _Fast | None = None
        try:
            self._fast = _Fast(own)
            self._compare([*_AWKWARD, *self._fast.vocabulary_texts()])
        except Unfit as reason:
            self._fall_back(str(reason))

    @property
    def faster(self) -> bool:
        """Whether tiktoken encodes."""
        return self._fast is not None

    def encode(self, texts: Sequence[str]) -> list[np.ndarray]:
        """The ids (int32) of each text."""
        if self._fast is not None and self._compared < _COMPARED_CHARACTERS:
            sample = []
            for text in texts:
                sample.append(text[:_COMPARED_CHARACTERS])
                self._compared += len(sample[-1])
                if self._compared >= _COMPARED_CHARACTERS:
                    break
            try:
                self._compare(sample)
            except Unfit as reason:
                self._fall_back(str(reason))
        if self._fast is None:
            return list(self._encode_itself(texts))
        encoded = [self._fast.encode(text) for text in texts]
        left = self._encode_itself([text for text, ids in zip(texts, encoded, strict=True) if ids is None])
        return [next(left) if ids is None else ids for ids in encoded]

    def count(self, texts: Sequence[str]) -> list[int]:
        """The number of tokens of each text."""
        return [len(ids) for ids in self.encode(texts)]

    def decode(self, ids: Sequence[int]) -> str:
        """The text of ``ids``."""
        return self.own.decode(list(ids))

    def locate_tokens(self, text: str) -> tuple[np.ndarray, np.ndarray]:
        """The ids of ``text``, and for each token the characters that it covers: rows of start and end.

        The tokens follow each other without a gap; those that share a character both cover it. Raises :class:`InputError`
        where the tokenizer does not know where its tokens stand.
        """
        if not self.own.is_fast:
            raise InputError(f"{self._name}: this tokenizer does not tell where its tokens stand: use action drop_row")
        encoded = self.own(text, add_special_tokens=False, return_offsets_mapping=True)
        spans = np.array(encoded["offset_mapping"], dtype=np.int64).reshape(-1, 2)
        # Some tokenizers leave the space before a word out of its span.
        spans[1:, 0] = np.minimum(spans[1:, 0], spans[:-1, 1])
        spans[:1, 0] = 0
        return np.array(encoded["input_ids"], dtype=np.int32), spans

    def _encode_itself(self, texts: Sequence[str]) -> Iterator[np.ndarray]:
        start = characters = 0
        for end, text in enumerate(texts, start=1):
            characters += len(text)
            if characters >= _ENCODED_CHARACTERS or end == len(texts):
                encoded = self.own(
                    list(texts[start:end]),
                    add_special_tokens=False,
                    return_attention_mask=False,
                    return_token_type_ids=False,
                )
                yield from (np.array(ids, dtype=np.int32) for ids in encoded["input_ids"])
                start, characters = end, 0

    def _compare(self, texts: Sequence[str]) -> None:
        """Raises :class:`Unfit` where tiktoken encodes one of ``texts`` in another way."""
        assert self._fast is not None
        for text, ids in zip(texts, self._encode_itself(texts), strict=True):
            found = self._fast.encode(text)
            if found is not None and not np.array_equal(found, ids):
                raise Unfit(f"encodes {text[:40]!r} in another way than tiktoken does")

    def _fall_back(self, reason: str) -> None:
        self._fast = None
        print(f"{self._name}: this tokenizer {reason}: it encodes itself, some ten times slower than tiktoken would")


def load_tokenizer(reference: Mapping[str, Any]) -> Tokenizer:
    """:func:`open_tokenizer` with its fast form."""
    return Tokenizer(open_tokenizer(reference), reference["model"])


class _Fast:
    """A byte-level BPE tokenizer in tiktoken. Raises :class:`Unfit` for any other kind."""

    def __init__(self, own: PreTrainedTokenizerBase) -> None:
        if not own.is_fast:
            raise Unfit("has no tokenizer.json")
        parts = json.loads(own.backend_tokenizer.to_str())
        model = parts["model"]
        if model["type"] != "BPE" or any(
            model.get(key) for key in ("dropout", "unk_token", "continuing_subword_prefix", "end_of_word_suffix")
        ):
            raise Unfit("is no plain BPE")
        if parts["normalizer"] not in (None, {"type": "NFC"}):
            raise Unfit(f"normalises with {parts['normalizer']['type']}")
        self._nfc = parts["normalizer"] is not None
        special = _special_tokens(parts["added_tokens"])
        self._special = set(special)
        # tiktoken's ids are the order in which it merges: those of the tokenizer stand at their places.
        self._bytes, self._ids = _merge_order(model, special)
        merged = {word: rank for rank, word in enumerate(self._bytes)}
        first = len(merged)
        self._ids = np.concatenate([self._ids, np.array(list(special.values()), dtype=np.int32)])
        specials = {text: first + number for number, text in enumerate(special)}
        self._encoding = _encoding(_pattern(parts["pre_tokenizer"]), merged, specials)

    def encode(self, text: str) -> np.ndarray | None:
        """The ids of ``text``; None where the tokenizer itself has to say."""
        # Normalisation may make or break a special token: rare enough to leave it to the tokenizer.
        if self._nfc and not unicodedata.is_normalized("NFC", text):
            return None
        try:
            ranks = self._encoding.encode_to_numpy(text, allowed_special=self._special, disallowed_special=())
        except ValueError:
            # A very long run of white space is more than the pattern's search can hold.
            return None
        return self._ids[ranks]

    def vocabulary_texts(self) -> list[str]:
        """Every token that is text of its own, on lines, so that most are a piece of their own."""
        words = []
        for word in self._bytes:
            try:
                words.append(word.decode())
            except UnicodeDecodeError:
                continue
        return ["\n".join(words[start : start + _WORDS]) for start in range(0, len(words), _WORDS)]


def _encoding(pattern: str, merged: dict[bytes, int], special: dict[str, int]) -> Encoding:
    import tiktoken

    try:
        return tiktoken.Encoding("own", pat_str=grouped(pattern), mergeable_ranks=merged, special_tokens=special)
    except ValueError as error:
        raise Unfit(f"has a pattern that tiktoken cannot read ({error})") from error


def grouped(pattern: str) -> str:
    """The same pattern with its first alternatives in a group, up to the first one that looks around or refers back.

    tiktoken's engine hands a part without such things to one that never backtracks, and of alternatives each is a part of its own:
    together they are matched half as fast again.
    """
    alternatives, start, depth, in_class = [], 0, 0, False
    for found in re.finditer(r"\\.|[][()|]", pattern, re.DOTALL):
        mark = found[0]
        if in_class:
            # A class may hold the closing bracket first, and others inside: patterns of tokenizers do not.
            in_class = mark != "]"
        elif mark == "[":
            in_class = True
        elif mark in "()":
            depth += 1 if mark == "(" else -1
        elif mark == "|" and not depth:
            alternatives.append(pattern[start : found.start()])
            start = found.end()
    alternatives.append(pattern[start:])
    easy = list(itertools.takewhile(lambda one: not _HARD.search(one), alternatives))
    if len(easy) < 2 or len(easy) == len(alternatives):
        return pattern
    return "|".join([f"(?:{'|'.join(easy)})", *alternatives[len(easy) :]])


def _special_tokens(added: Sequence[Mapping[str, Any]]) -> dict[str, int]:
    """The added tokens, which are found before anything is split, by their text."""
    special = {}
    for token in added:
        if token["lstrip"] or token["rstrip"] or token["single_word"]:
            raise Unfit(f"strips around {token['content']}")
        special[token["content"]] = token["id"]
    ordered = sorted(special)
    # The longest wins, with tiktoken any: a text that begins with another stands right after it, or after its kin.
    if any(after.startswith(text) for text, after in itertools.pairwise(ordered)):
        raise Unfit("has added tokens that begin with others")
    return special


def _pattern(pre_tokenizer: Mapping[str, Any] | None) -> str:
    """The one pattern that a pre-tokenizer splits with."""
    steps = (pre_tokenizer or {}).get("pretokenizers", [pre_tokenizer])
    *before, last = steps
    if not last or last["type"] != "ByteLevel" or last["add_prefix_space"]:
        raise Unfit("works on no bytes, or adds a space")
    if not before and last["use_regex"]:
        return _GPT2_PATTERN
    if len(before) != 1 or last["use_regex"] or before[0]["type"] != "Split":
        raise Unfit("splits text in several steps")
    split = before[0]
    if split["behavior"] != "Isolated" or split["invert"] or "Regex" not in split["pattern"]:
        raise Unfit("splits text in another way than by isolating what a pattern matches")
    return split["pattern"]["Regex"]


def _merge_order(model: Mapping[str, Any], special: Mapping[str, int]) -> tuple[list[bytes], np.ndarray]:
    """The tokens as bytes in the order in which they are merged, single bytes first, and their ids."""
    vocabulary = model["vocab"]
    byte_of = _byte_alphabet()
    if any(letter not in vocabulary for letter in byte_of):
        raise Unfit("lacks single bytes")
    pairs = (pair if isinstance(pair, list) else pair.split(" ") for pair in model["merges"])
    words = dict.fromkeys([*byte_of, *map("".join, pairs)])
    if model.get("ignore_merges") and not vocabulary.keys() <= words.keys() | special.keys():
        raise Unfit("knows words that no merge makes")
    try:
        spelled = [bytes(byte_of[letter] for letter in word) for word in words]
        return spelled, np.array([vocabulary[word] for word in words], dtype=np.int32)
    except KeyError as error:
        raise Unfit(f"has merges beyond its vocabulary ({error})") from error


def _byte_alphabet() -> dict[str, int]:
    """The letters that byte-level tokenizers write bytes with: printable ones of Latin-1 as they are, others from 256 on."""
    printable = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
    others = [byte for byte in range(256) if byte not in set(printable)]
    return {**{chr(byte): byte for byte in printable}, **{chr(256 + place): byte for place, byte in enumerate(others)}}
