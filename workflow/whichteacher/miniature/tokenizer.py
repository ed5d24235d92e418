"""The miniature's tokenizer: byte-level BPE on the trace programs' text, one token per digit, the project's template."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING

from whichteacher.chat import CHAT_TEMPLATE, END_OF_TURN, PADDING, START_OF_TURN
from whichteacher.miniature.problems import CATEGORIES, draw_problem
from whichteacher.miniature.styles import STYLES, write_trace
from whichteacher.responses import TAGS, join_response

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

_VOCABULARY = 768
_PROBLEMS_PER_CATEGORY = 1500


def build_tokenizer() -> PreTrainedTokenizerFast:
    """Train the tokenizer; always the same one, as its text is seeded.

    Any text can be encoded (all 256 bytes are in the vocabulary). Each digit is a token, so that arithmetic is about
    digits; the format's tags and the template's marks are single tokens.
    """
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    tokenizer.decoder = decoders.ByteLevel()
    rng = random.Random(0)
    texts = []
    for category in CATEGORIES:
        for _ in range(_PROBLEMS_PER_CATEGORY):
            problem = draw_problem(category, rng)
            texts += [f"{role}\n{content}" for role, content in problem.turns]
            texts.append(f"assistant\n{join_response(*write_trace(problem, rng.choice(STYLES)))}")
    tokenizer.train_from_iterator(
        texts,
        trainers.BpeTrainer(
            vocab_size=_VOCABULARY,
            special_tokens=[PADDING, START_OF_TURN, END_OF_TURN, *TAGS],
            initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
            show_progress=False,
        ),
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token=PADDING,
        eos_token=END_OF_TURN,
        chat_template=CHAT_TEMPLATE,
        clean_up_tokenization_spaces=False,
        model_max_length=1024,
    )
