"""The tokenizer of a model, as transformers has it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from whichteacher.places import locate
from whichteacher.rule import InputError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


def open_tokenizer(reference: Mapping[str, Any]) -> PreTrainedTokenizerBase:
    """The tokenizer of a model reference (keys ``model`` and ``revision``) as transformers has it.

    Raises :class:`InputError` where it cannot be loaded.
    """
    # The plain class reads any tokenizer.json, and AutoTokenizer would import torch first: seconds, in every job.
    from transformers import PreTrainedTokenizerFast

    place, revision = locate(reference["model"]), reference["revision"]
    try:
        try:
            return PreTrainedTokenizerFast.from_pretrained(place, revision=revision)
        except (OSError, ValueError, TypeError):
            from transformers import AutoTokenizer

            return AutoTokenizer.from_pretrained(place, revision=revision)
    except (OSError, ValueError) as error:
        raise InputError(f"{reference['model']}: no usable tokenizer: {error}") from error
