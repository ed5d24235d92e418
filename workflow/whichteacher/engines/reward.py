"""A reward model in this process, through transformers: ratings of a dialogue's last answer.

The paper's is RLHFlow/Decision-Tree-Reward-Llama-3.1-8B (section 2.2): a Llama with a class of its own and a linear head of
five ratings, 0 to 4 as in HelpSteer2. Its head was fitted to the final hidden state of the dialogue's last token, read one
dialogue at a time (RLHFlow/RLHF-Reward-Modeling, decision_tree/get_embeddings.py). So it is applied here: the ``logits`` of
transformers' class would be those of the last token that is not the padding token, another one where the end of a turn pads.

One dialogue is one forward pass: in a batch the sums run in another order, which bfloat16 shows in the ratings, and a verdict
would depend on its neighbours.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from importlib import metadata
from typing import TYPE_CHECKING, Any

from jinja2 import TemplateError

from whichteacher.engines.specs import Completion, RewardSpec
from whichteacher.engines.vllm import hardware
from whichteacher.places import locate
from whichteacher.rule import InputError

if TYPE_CHECKING:
    from torch.nn import Module
    from transformers import PreTrainedModel

#: The ratings of a head of five that the model does not name: those of the paper's, in the order in which its head was fitted.
RATINGS = ("helpfulness", "correctness", "coherence", "complexity", "verbosity")
#: Those that the score is made of (paper section 2.2).
SCORED = ("coherence", "correctness", "helpfulness")
#: Ratings are given to so many decimals: the last digits of a sum depend on the number of threads.
_DECIMALS = 4


class RewardEngine:
    """A reward model, loaded. Raises :class:`InputError` where it cannot be loaded or gives other ratings than are scored."""

    def __init__(self, spec: RewardSpec) -> None:
        self.spec = spec
        self.facts = {
            "engine": "transformers",
            "engine_version": f"transformers {metadata.version('transformers')}",
            "hardware": hardware(),
            "devices": 1,
        }
        self._model, self._tokenizer = _load(spec)
        self._head = _head(self._model, spec.model)
        self._names = _names(self._model, self._head, spec.model)

    def run(self, missing: Mapping[str, str]) -> Iterator[Completion]:
        """A completion for each key of ``missing`` (key: JSON of the messages, the judged answer last).

        Its text is the JSON of all ratings by name, and ``finish_reason`` is ``stop``. It has no text where the dialogue has more
        than ``max_model_len`` tokens (``prompt_too_long``: it is not cut), where the chat template cannot render it
        (``not_rendered``) and where a rating is no number (``not_finite``).
        """
        for key, dialogue in missing.items():
            try:
                ids = self._tokens(dialogue)
            except TemplateError as error:
                print(f"request {key}: the chat template of {self.spec.model} fails: {error}")
                yield Completion(key, "", None, "not_rendered", 0, 0)
                continue
            if len(ids) > self.spec.max_model_len:
                yield Completion(key, "", None, "prompt_too_long", len(ids), 0)
                continue
            ratings = self._ratings(ids)
            if not all(map(math.isfinite, ratings)):
                yield Completion(key, "", None, "not_finite", len(ids), 0)
                continue
            # Adding zero makes -0.0 zero.
            rounded = [round(rating, _DECIMALS) + 0.0 for rating in ratings]
            yield Completion(key, json.dumps(dict(zip(self._names, rounded, strict=True))), None, "stop", len(ids), 0)

    def _tokens(self, dialogue: str) -> list[int]:
        # Rendered and encoded apart: the template writes the start token itself, and encoding would add another.
        text = self._tokenizer.apply_chat_template(json.loads(dialogue), tokenize=False)
        return self._tokenizer.encode(text, add_special_tokens=False)

    def _ratings(self, ids: list[int]) -> list[float]:
        import torch

        with torch.inference_mode():
            tokens = torch.tensor([ids], device=self._model.device)
            states = self._model.base_model(input_ids=tokens, use_cache=False).last_hidden_state
            return self._head(states[0, -1].float()).tolist()


def _load(spec: RewardSpec) -> tuple[PreTrainedModel, Any]:
    import torch
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    place = locate(spec.model)
    # Code and weights of one commit: code of a later one is code that nobody looked at.
    pinned = {"revision": spec.revision, "code_revision": spec.revision} if spec.revision else {}
    try:
        tokenizer = AutoTokenizer.from_pretrained(place, trust_remote_code=spec.trust_remote_code, **pinned)
        model, told = AutoModelForSequenceClassification.from_pretrained(
            place, trust_remote_code=spec.trust_remote_code, dtype=spec.dtype, output_loading_info=True, **pinned
        )
    except (AttributeError, ImportError, OSError, RuntimeError, TypeError, ValueError) as error:
        raise InputError(f"the reward model {spec.model} cannot be loaded: {error}") from error
    if tokenizer.chat_template is None:
        raise InputError(f"the reward model {spec.model} has no chat template: take a model whose tokenizer has one")
    # A head of random weights would rate all the same, and so would one without its bias.
    if astray := sorted({*told["missing_keys"], *(key for key in told["unexpected_keys"] if key.startswith("score."))}):
        raise InputError(
            f"the weights of the reward model {spec.model} do not fit its class {type(model).__name__} "
            f"({', '.join(astray[:3])}): take a model with a regression head, or set trust_remote_code for one with a class "
            "of its own"
        )
    longest = model.config.get_text_config().max_position_embeddings
    if spec.max_model_len > longest:
        raise InputError(f"the reward model {spec.model} reads {longest} tokens: lower max_model_len to that")
    return model.eval().to("cuda" if torch.cuda.is_available() else "cpu"), tokenizer


def _head(model: PreTrainedModel, name: str) -> Module:
    """The regression head, in float32: it costs nothing, and bfloat16 knows the ratings to two digits."""
    from torch.nn import Linear

    head = getattr(model, "score", None)
    if not isinstance(head, Linear) or model.base_model is model:
        raise InputError(
            f"the class {type(model).__name__} of the reward model {name} has no linear head named score: take a model that "
            "has, like RLHFlow/Decision-Tree-Reward-Llama-3.1-8B"
        )
    return head.float()


def _names(model: PreTrainedModel, head: Module, name: str) -> list[str]:
    """The name of each rating: the model's own where its configuration has them, else those of :data:`RATINGS`."""
    count = head.out_features
    labels = [str(model.config.id2label.get(number, "")) for number in range(count)]
    if labels == [f"LABEL_{number}" for number in range(count)] and count == len(RATINGS):
        labels = list(RATINGS)
    if len(set(labels)) < count or not set(SCORED) <= set(labels):
        raise InputError(
            f"the reward model {name} gives {count} ratings, {', '.join(labels)}: take one that gives {', '.join(SCORED)} "
            f"and names them (id2label of its configuration), or gives the five of {', '.join(RATINGS)}"
        )
    return labels
