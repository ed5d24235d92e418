"""Texts as vectors of unit length, for cosine similarity.

``hashed_words`` needs no model and no hub; any other name is a sentence-transformers model (bge-m3 in the paper). Hashed
words find a text set in slightly other words around the same numbers, which is what the miniature plants. They find next
to no free paraphrase: a study of real queries needs a model.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import numpy as np
import xxhash

from whichteacher.places import locate
from whichteacher.rule import InputError
from whichteacher.store import model_digest
from whichteacher.words import NUMBER_WORDS, SILENT_WORDS, split_texts

if TYPE_CHECKING:
    from numpy.typing import NDArray

Encoder = Callable[[Sequence[str]], "NDArray[np.float32]"]

HASHED_WORDS = "hashed_words"
HASHED_DIMENSIONS = 4096

#: A digit weighs as much as this many words. Chosen so that two wordings of a sum stay above 0.9 and sums that differ
#: in one number, sign or verb stay below 0.8; tests hold both.
_DIGIT_WEIGHT = 4.0
#: From so many numbers on, a text is known by their sequence, which has this share of its vector (the smaller one where the
#: numbers have fewer digits). At 0.9, two texts of the same sequence are similar if their words are above 1/3 (4/9).
_TELLING_NUMBERS = 3
_TELLING_DIGITS = 6
_SEQUENCE_SHARE = 0.85
_SHORT_SEQUENCE_SHARE = 0.82
_STEM_LETTERS = 3
#: The sequence of a text's numbers has most of its vector's weight, and so many places there.
_SEQUENCE_PLACES = 16
#: Words that say what is done with the number after them.
_ARITHMETIC = {
    **dict.fromkeys(("add", "added", "plus"), "+"),
    **dict.fromkeys(("subtract", "subtracted", "minus"), "-"),
    **dict.fromkeys(("multiply", "multiplied", "times"), "*"),
    **dict.fromkeys(("divide", "divided"), "/"),
}

_BATCH_TEXTS = 32


def load_encoder(name: str, revision: str | None = None) -> Encoder:
    """The encoder called ``name`` in the config. Raises :class:`InputError` where it cannot be loaded."""
    return encode_hashed_words if name == HASHED_WORDS else load_sentence_encoder(name, revision)


def encoder_identity(name: str, revision: str | None = None) -> dict[str, str]:
    """What determines the vectors of the encoder called ``name``: its weights, and the device, whose precision differs."""
    if name == HASHED_WORDS:
        return {"encoder": name}
    return {"encoder": model_digest(name, revision), "device": _device()}


def _device() -> str:
    import torch

    return "cuda" if torch.cuda.is_available() else "cpu"


# --- hashed words ----------------------------------------------------------------------------------------------------


def encode_hashed_words(texts: Sequence[str]) -> NDArray[np.float32]:
    """Words, numbers and the sequence of numbers of each text, hashed to :data:`HASHED_DIMENSIONS` signed places.

    A number is taken with what is done with it: the operator or the last telling word before it. A text without words
    is the zero vector.
    """
    vectors = np.zeros((len(texts), HASHED_DIMENSIONS), dtype=np.float32)
    for vector, split in zip(vectors, split_texts(texts), strict=True):
        for feature, weight in _features(split.words).items():
            # Spread out, so that two sequences that meet in one place by chance stay far apart.
            places = _SEQUENCE_PLACES if feature.startswith("\0") else 1
            for place in range(places):
                digest = xxhash.xxh3_64_intdigest(feature.encode(), seed=place)
                vector[digest % HASHED_DIMENSIONS] += np.sqrt(weight / places) * (1.0 if digest >> 63 else -1.0)
        norm = np.linalg.norm(vector)
        if norm:
            vector /= norm
    return vectors


def _features(words: Sequence[str]) -> dict[str, float]:
    """What a text is made of, and the square of each part's weight. A digit counts as information: longer numbers,
    which two texts share by chance more seldom, weigh more."""
    words = [NUMBER_WORDS.get(word, word) for word in words]
    numbers = [word for word in words if word[0].isdigit()]
    if len(numbers) >= _TELLING_NUMBERS and not _counts(numbers):
        return _story_features(words, sum(map(len, numbers)))
    features: dict[str, float] = {}
    before, sequence = "", []
    for word in words:
        if word[0].isdigit():
            features[f"{before} {word}"] = _DIGIT_WEIGHT * len(word)
            sequence.append(f"{before} {word}")
            before = ""
        elif word not in SILENT_WORDS:
            before = word
            if word.isalpha():
                features[word] = 1.0
    if sequence:
        features["\0".join(["", *sequence])] = _DIGIT_WEIGHT * sum(map(len, numbers))
    return features


def _counts(numbers: Sequence[str]) -> bool:
    """Whether the numbers do no more than number something: 1, 2, 3."""
    return set(numbers) <= {str(place) for place in range(1, len(numbers) + 1)}


def _story_features(words: Sequence[str], digits: int) -> dict[str, float]:
    """The features of a text with many numbers: their sequence, each with its sign or the arithmetic said before it, and the
    words. Such a sequence is hardly ever met by chance, so that a third to a half of the words in common is enough."""
    sequence, features = [], {}
    before = ""
    for word in words:
        if word[0].isdigit():
            sequence.append(f"{before}{word}")
            before = ""
        elif not word.isalpha():
            before = word
        elif word not in SILENT_WORDS:
            before = _ARITHMETIC.get(word, "")
            features[_stem(word)] = 1.0
    share = _SEQUENCE_SHARE if digits >= _TELLING_DIGITS else _SHORT_SEQUENCE_SHARE
    weight = (1 - share) / max(len(features), 1)
    return {"\0".join(["", *sequence]): share, **dict.fromkeys(features, weight)}


def _stem(word: str) -> str:
    ending = next((ending for ending in ("ing", "ed", "es", "s") if word.endswith(ending)), "")
    return word[: len(word) - len(ending)] if len(word) - len(ending) >= _STEM_LETTERS else word


# --- sentence-transformers models ------------------------------------------------------------------------------------


def load_sentence_encoder(model: str, revision: str | None) -> Encoder:
    """A sentence-transformers model by hub id and revision, or folder: its dense vectors, pooled as the model says.

    Weights are float32 on a CPU and float16 on a GPU. Raises :class:`InputError` where the model cannot be loaded or
    names no pooling.
    """
    import json
    from pathlib import Path

    import torch
    from transformers import AutoModel, AutoTokenizer
    from transformers.utils import cached_file

    device = _device()
    try:
        model = locate(model)
        pooling = json.loads(Path(cached_file(model, "1_Pooling/config.json", revision=revision)).read_text("utf-8"))
        tokenizer = AutoTokenizer.from_pretrained(model, revision=revision)
        dtype = torch.float16 if device == "cuda" else torch.float32
        network = AutoModel.from_pretrained(model, revision=revision, dtype=dtype).to(device).eval()
    except (OSError, ValueError) as error:
        raise InputError(
            f"embedder {model} cannot be loaded: {error}: check config key corpus.decontaminate.embedder, which takes "
            f"a sentence-transformers model or {HASHED_WORDS}"
        ) from error
    if not (pooling.get("pooling_mode_cls_token") or pooling.get("pooling_mode_mean_tokens")):
        raise InputError(f"embedder {model} pools neither its first token nor the mean of its tokens: take another")
    longest = min(tokenizer.model_max_length, network.config.max_position_embeddings)

    @torch.inference_mode()
    def encode(texts: Sequence[str]) -> NDArray[np.float32]:
        # Batches of like length waste least on padding.
        order = sorted(range(len(texts)), key=lambda i: len(texts[i]))
        vectors = np.zeros((len(texts), network.config.hidden_size), dtype=np.float32)
        for start in range(0, len(order), _BATCH_TEXTS):
            batch = order[start : start + _BATCH_TEXTS]
            tokens = tokenizer(
                [texts[i] for i in batch], padding=True, truncation=True, max_length=longest, return_tensors="pt"
            ).to(device)
            states = network(**tokens).last_hidden_state.float()
            if pooling.get("pooling_mode_cls_token"):
                pooled = states[:, 0]
            else:
                mask = tokens["attention_mask"].unsqueeze(-1)
                pooled = (states * mask).sum(1) / mask.sum(1)
            vectors[batch] = torch.nn.functional.normalize(pooled, dim=1).cpu().numpy()
        return vectors

    return encode
