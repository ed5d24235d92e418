"""Token ids: those of the tokenizer itself, whatever encodes."""

import json
import random
import sys
import unicodedata

import numpy as np
import pytest
import regex
from hypothesis import given, settings
from hypothesis import strategies as st

from whichteacher import tokens
from whichteacher.miniature.problems import CATEGORIES, draw_problem
from whichteacher.miniature.styles import STYLES, write_trace
from whichteacher.responses import join_response
from whichteacher.rule import InputError
from whichteacher.tokens import Tokenizer, load_tokenizer

#: How Qwen2 and Qwen3 split text.
PATTERN = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
SPECIAL = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]


def responses(count: int = 400) -> list[str]:
    rng = random.Random(0)
    return [
        join_response(*write_trace(draw_problem(rng.choice(CATEGORIES), rng), rng.choice(STYLES))) for _ in range(count)
    ] + ["日本語 für naïve Übung", "привет мир", "x² ≤ √2", "🙂🙂"] * 5


def qwen_like(pre_tokenizer=None, **added):
    """A tokenizer of Qwen's kind, trained on the miniature's traces."""
    from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    core = Tokenizer(models.BPE())
    core.normalizer = normalizers.NFC()
    core.pre_tokenizer = pre_tokenizer or pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(PATTERN), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    core.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=1500, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False
    )
    core.train_from_iterator(responses(), trainer)
    core.add_special_tokens([AddedToken(text, normalized=False, special=True) for text in SPECIAL])
    core.add_tokens([AddedToken(text, normalized=False, **settings) for text, settings in added.items()])
    return PreTrainedTokenizerFast(tokenizer_object=core)


@pytest.fixture(scope="module")
def own():
    return qwen_like()


@pytest.fixture(scope="module")
def fast(own):
    return Tokenizer(own, "like Qwen")


def ids_of(own, text: str) -> list[int]:
    return own.encode(text, add_special_tokens=False)


def test_a_tokenizer_like_qwens_runs_in_tiktoken(own, fast):
    assert fast.faster
    texts = [*responses(), *tokens._AWKWARD]
    encoded = fast.encode(texts)
    assert [ids.tolist() for ids in encoded] == [ids_of(own, text) for text in texts]
    assert {ids.dtype for ids in encoded} == {np.dtype(np.int32)}
    assert fast.count(texts) == [len(ids) for ids in encoded]
    assert all(fast.decode(ids) == text for ids, text in zip(encoded[:50], texts, strict=False))


PIECES = ["<|im_end|>", "<|im_", "\u0338", "e\u0301", "  ", "\n\n", "'S", "12", "日", "🙂", "ab", " the", "\u212a"]


@settings(deadline=None, max_examples=200)
@given(st.one_of(st.text(), st.lists(st.sampled_from(PIECES), max_size=12).map("".join)))
def test_any_text_has_the_tokens_of_the_tokenizer_itself(own, fast, text):
    assert fast.encode([text])[0].tolist() == ids_of(own, text)


def test_every_character_is_split_alike(own, fast):
    """Unicode versions and the meaning of character classes are those of two libraries of regular expressions."""
    characters = [
        chr(code)
        for code in range(sys.maxunicode + 1)
        if unicodedata.category(chr(code)) not in ("Cn", "Co", "Cs")
        and not unicodedata.name(chr(code), "").startswith("CJK")
    ]
    texts = [
        "".join(f"a{each}b {each}1'{each}{each} " for each in characters[start : start + 500] if each.isprintable())
        for start in range(0, len(characters), 500)
    ]
    texts = [unicodedata.normalize("NFC", text) for text in texts]
    assert [ids.tolist() for ids in fast.encode(texts)] == own(texts, add_special_tokens=False)["input_ids"]


def test_what_tiktoken_cannot_search_the_tokenizer_encodes(own, fast):
    long = " " * 1_000_000 + "x"
    assert fast._fast.encode(long) is None
    assert [len(ids) for ids in fast.encode(["a", long, "b b"])] == [
        len(ids_of(own, text)) for text in ("a", long, "b b")
    ]
    assert fast.faster


def test_ids_need_not_be_in_the_order_of_the_merges(own):
    from tokenizers import Tokenizer as Core
    from transformers import PreTrainedTokenizerFast

    parts = json.loads(own.backend_tokenizer.to_str())
    words = list(parts["model"]["vocab"])
    parts["model"]["vocab"] = {word: len(words) - 1 - place for place, word in enumerate(words)}
    turned = PreTrainedTokenizerFast(tokenizer_object=Core.from_str(json.dumps(parts)))
    texts = responses(50)
    quick = Tokenizer(turned, "turned")
    assert quick.faster
    assert [ids.tolist() for ids in quick.encode(texts)] == [ids_of(turned, text) for text in texts]


def test_gpt2s_way_to_split_is_known():
    from tokenizers import pre_tokenizers

    own = qwen_like(pre_tokenizers.ByteLevel(add_prefix_space=False))
    quick = Tokenizer(own, "gpt2")
    assert quick.faster
    assert [ids.tolist() for ids in quick.encode(responses(50))] == [ids_of(own, text) for text in responses(50)]


def test_other_kinds_encode_themselves(capsys):
    from tokenizers import Tokenizer as Core
    from tokenizers import models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    words = Core(models.WordLevel({"a": 0, "b": 1, "?": 2}, unk_token="?"))
    words.pre_tokenizer = pre_tokenizers.Whitespace()
    byte_level = pre_tokenizers.ByteLevel(add_prefix_space=True)
    digits = pre_tokenizers.Sequence([pre_tokenizers.Digits(), pre_tokenizers.ByteLevel(add_prefix_space=False)])
    known = json.loads(qwen_like().backend_tokenizer.to_str())
    known["model"]["vocab"]["xyzzy"] = 1600
    known["model"]["ignore_merges"] = True
    whole = PreTrainedTokenizerFast(tokenizer_object=Core.from_str(json.dumps(known)))
    for own, reason in (
        (whole, "knows words that no merge makes"),
        (PreTrainedTokenizerFast(tokenizer_object=words), "is no plain BPE"),
        (qwen_like(byte_level), "works on no bytes, or adds a space"),
        (qwen_like(digits), "splits text in several steps"),
        (qwen_like(**{"<x>": {"lstrip": True}}), "strips around <x>"),
        (qwen_like(**{"<x>": {}, "<x>y": {}}), "has added tokens that begin with others"),
    ):
        itself = Tokenizer(own, "other")
        assert not itself.faster
        assert f"other: this tokenizer {reason}" in capsys.readouterr().out
        assert itself.encode(["a b <x>y"])[0].tolist() == ids_of(own, "a b <x>y")


def test_a_difference_on_the_texts_at_hand_is_told_and_avoided(own, monkeypatch, capsys):
    quick = Tokenizer(own, "odd")
    right = quick._fast.encode
    monkeypatch.setattr(quick._fast, "encode", lambda text: right(text.replace("q", "qq")))
    assert quick.faster and quick.encode(["nothing odd"])[0].tolist() == ids_of(own, "nothing odd")
    assert quick.encode(["a", "quite odd"])[1].tolist() == ids_of(own, "quite odd")
    assert not quick.faster
    assert "odd: this tokenizer encodes 'quite odd' in another way than tiktoken does" in capsys.readouterr().out


def test_only_the_first_texts_are_encoded_twice(own, monkeypatch):
    monkeypatch.setattr(tokens, "_COMPARED_CHARACTERS", 10)
    quick, asked = Tokenizer(own, "x"), []
    monkeypatch.setattr(quick, "_compare", asked.extend)
    quick.encode(["four", "five5", "and the rest", "more"])
    quick.encode(["later"])
    assert asked == ["four", "five5", "and the re"]


def test_tokens_stand_where_they_cover_the_text(own, fast):
    text = "So  naïve\u0301 日🙂, 12 + 5.\n\n  ok "
    ids, spans = fast.locate_tokens(text)
    assert ids.tolist() == ids_of(own, text)
    covered = {place for first, end in spans.tolist() for place in range(first, end)}
    assert covered == set(range(len(text)))
    assert all(first < end for first, end in spans.tolist())
    assert fast.locate_tokens("")[1].shape == (0, 2)


def test_a_missing_tokenizer_is_the_users_to_mend(tmp_path):
    with pytest.raises(InputError, match="no usable tokenizer"):
        load_tokenizer({"model": str(tmp_path), "revision": None})


@pytest.mark.parametrize(
    ("pattern", "expected"),
    [
        (PATTERN, PATTERN.replace(r"|\s+(?!\S)|\s+", r")|\s+(?!\S)|\s+").replace("(?i:", "(?:(?i:")),
        (r"[|]|\||(x|y){2,}|\s+(?!\S)|z", r"(?:[|]|\||(x|y){2,})|\s+(?!\S)|z"),
        (r"a(?=b)|c|d", r"a(?=b)|c|d"),
        (r"a|b++|c", r"a|b++|c"),
        (r"a|b", r"a|b"),
    ],
)
def test_alternatives_are_grouped_up_to_the_first_that_looks_around(pattern, expected):
    assert tokens.grouped(pattern) == expected


@settings(max_examples=300, deadline=None)
@given(st.text(alphabet="aZ'sléß 1٣\t\n\r.,|<中\u0301", max_size=40))
def test_a_grouped_pattern_splits_alike(text):
    for pattern in (tokens._GPT2_PATTERN, PATTERN):
        assert regex.findall(pattern, text) == regex.findall(tokens.grouped(pattern), text)
