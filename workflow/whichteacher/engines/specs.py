"""What decides a response, and the key it is stored under.

A spec says which model answers and how. The part of it that can change what the model says (:meth:`settings`) is in every
key, together with the model's digest, the rendered prompt and the number of the attempt; how the model is served
(parallelism, address, patience) is not, so that the same response is found again whoever computed it.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple, Protocol

from whichteacher.places import locate
from whichteacher.store import digest, file_digest, model_digest


class Completion(NamedTuple):
    """What an engine gives back for one key.

    ``reasoning`` is what an endpoint hands over apart from the text, None elsewhere. ``finish_reason`` is ``stop``, ``length``,
    ``prompt_too_long``, or the engine's own word. ``output_tokens`` is 0 where a model reads and generates nothing. A completion
    that is not ``durable`` is not stored: it is the answer of a machine that may answer otherwise tomorrow (a request that an
    endpoint refused).
    """

    key: str
    text: str
    reasoning: str | None
    finish_reason: str
    prompt_tokens: int
    output_tokens: int
    durable: bool = True


class Score(NamedTuple):
    """What a scorer gives back for one row (a rendered query and a response): the sums of the negative log-likelihoods of the
    tokens it read, and how many those are, apart for query and response.

    ``content`` is :func:`content_digest` of the row, ``length`` its tokens, read or not. The first token of a row has no
    prediction and is in no sum.
    """

    key: str
    content: str
    length: int
    query_tokens: int
    query_nll: float
    response_tokens: int
    response_nll: float


class Engine(Protocol):
    """A started engine. ``facts`` holds ``engine``, ``engine_version``, ``hardware`` and ``devices`` (GPUs or CPU engines
    that work at the same time; None where nobody can know)."""

    facts: dict[str, Any]

    def run(self, missing: Mapping[str, str]) -> Any:
        """Iterate over a :class:`Completion` for each key of ``missing`` (key: rendered prompt), in any order."""


def _known(settings: Mapping[str, Any]) -> dict[str, Any]:
    """``settings`` without what is not set: a setting that comes into being later changes no key of those who never use it."""
    return {name: value for name, value in settings.items() if value is not None}


@dataclass(frozen=True)
class VllmSpec:
    """A model that vLLM serves in this process (or in one process per replica)."""

    model: str
    revision: str | None
    dtype: str
    max_model_len: int
    sampling: dict[str, Any] = field(hash=False)  # temperature, top_p, top_k, max_tokens, stop
    quantization: str | None = None
    tensor_parallel: int = 1
    pipeline_parallel: int = 1
    data_parallel: int = 1
    arguments: dict[str, Any] = field(default_factory=dict, hash=False)  # further ones of vllm.LLM

    def owner(self) -> str:
        """The model's digest."""
        return model_digest(self.model, self.revision)

    def settings(self) -> dict[str, Any]:
        """The part of the spec that is in every key."""
        return _known(
            {
                "sampling": _known(self.sampling),
                "max_model_len": self.max_model_len,
                "dtype": self.dtype,
                "quantization": self.quantization,
            }
        )


@dataclass(frozen=True)
class OpenaiSpec:
    """A model behind an OpenAI-compatible endpoint.

    ``api`` is ``completions`` (a prompt rendered here) or ``chat`` (messages, rendered there; the prompt is their JSON).
    """

    model: str
    revision: str | None
    sampling: dict[str, Any] = field(hash=False)
    base_url: str
    served_model: str
    api: str
    extra_body: dict[str, Any] = field(default_factory=dict, hash=False)
    api_key_env: str | None = None
    concurrency: int = 32
    requests_per_minute: int | None = None
    retries: int = 8
    timeout_seconds: float = 3600.0

    def owner(self) -> str:
        """The model's digest: of its weights or commit where they are known, else of its name."""
        if self.revision is None and not self.model.startswith(("./", "../", "/")):
            return digest({"served": self.model})
        return model_digest(self.model, self.revision)

    def settings(self) -> dict[str, Any]:
        """The part of the spec that is in every key."""
        return {"sampling": _known(self.sampling), "api": self.api, "extra_body": self.extra_body}


@dataclass(frozen=True)
class RewardSpec:
    """A reward model: a language model with a regression head that rates a dialogue's last answer on several scales.

    The prompt is the JSON of the dialogue's messages. ``trust_remote_code`` runs the class that the model's own files
    define, of the same ``revision``; without it only transformers' own classes are used.
    """

    model: str
    revision: str | None
    dtype: str
    max_model_len: int
    trust_remote_code: bool = False

    def owner(self) -> str:
        """The model's digest. That of a folder holds its class and chat template too: no prompt tells which they were."""
        known = model_digest(self.model, self.revision)
        if self.revision is not None:
            return known
        folder = Path(locate(self.model))
        files = sorted({*folder.glob("*.py"), *folder.glob("chat_template*")})
        return digest({"model": known, "files": {path.name: file_digest(path) for path in files}})

    def settings(self) -> dict[str, Any]:
        """The part of the spec that is in every key."""
        return {
            "dtype": self.dtype,
            "max_model_len": self.max_model_len,
            "trust_remote_code": self.trust_remote_code,
        }


#: How vLLM reads where nothing is generated. It holds the logits of all tokens of a step at once and reserves no memory for
#: them: 2048 tokens of a vocabulary of 150,000 take 2 GB. No request would read what the prefix cache holds.
_READING = {"max_num_batched_tokens": 2048, "enable_chunked_prefill": True, "enable_prefix_caching": False}


@dataclass(frozen=True)
class ScorerSpec:
    """A model whose perplexity is taken: vLLM reads a query and a response, of no more than ``max_length`` tokens together.

    ``overlong`` says what becomes of a longer row: ``first_tokens`` (those are read) or ``unscored``.
    """

    model: str
    revision: str | None
    dtype: str
    max_length: int
    overlong: str
    quantization: str | None = None
    tensor_parallel: int = 1
    pipeline_parallel: int = 1
    data_parallel: int = 1
    arguments: dict[str, Any] = field(default_factory=dict, hash=False)  # further ones of vllm.LLM

    def owner(self) -> str:
        """The model's digest. The chat template is in the rendered query, so in the key."""
        return model_digest(self.model, self.revision)

    def settings(self) -> dict[str, Any]:
        """The part of the spec that is in every key."""
        names = ("dtype", "quantization", "max_length", "overlong")
        return _known({name: getattr(self, name) for name in names})

    def served(self) -> VllmSpec:
        """The model as vLLM serves it: it always generates a token, which nobody keeps."""
        return VllmSpec(
            model=self.model,
            revision=self.revision,
            dtype=self.dtype,
            max_model_len=self.max_length + 1,
            sampling={"temperature": 0.0, "max_tokens": 1, "prompt_logprobs": 0},
            quantization=self.quantization,
            tensor_parallel=self.tensor_parallel,
            pipeline_parallel=self.pipeline_parallel,
            data_parallel=self.data_parallel,
            arguments=_READING | self.arguments,
        )


Spec = VllmSpec | OpenaiSpec | RewardSpec


def request_keys(owner: str, settings: Mapping[str, Any]) -> Callable[[str, int], str]:
    """A function from a rendered prompt and the number of its attempt to the store's key (64 hex digits) of the response
    of the model ``owner`` under ``settings``."""
    canonical = json.dumps({"model": owner, **settings}, sort_keys=True, separators=(",", ":"))
    base = hashlib.sha256(canonical.encode())

    def key(prompt: str, attempt: int) -> str:
        found = base.copy()
        # The NUL ends the JSON before it, the fixed width the number: no two requests write the same bytes.
        found.update(b"\0" + attempt.to_bytes(8, "little"))
        found.update(prompt.encode("utf-8", "surrogatepass"))
        return found.hexdigest()

    return key


def content_digest(query: str, response: str) -> str:
    """sha256 (hex) of a rendered query and a response."""
    before = query.encode("utf-8", "surrogatepass")
    # The length of the first says where the second begins.
    found = hashlib.sha256(len(before).to_bytes(8, "little") + before)
    found.update(response.encode("utf-8", "surrogatepass"))
    return found.hexdigest()


def score_keys(owner: str, settings: Mapping[str, Any]) -> Callable[[str], str]:
    """A function from the :func:`content_digest` of a row to the store's key (64 hex digits) of its score by the model
    ``owner`` under ``settings``."""
    canonical = json.dumps({"model": owner, **settings}, sort_keys=True, separators=(",", ":"))
    base = hashlib.sha256(canonical.encode())

    def key(content: str) -> str:
        found = base.copy()
        found.update(b"\0" + bytes.fromhex(content))
        return found.hexdigest()

    return key


def request_seed(key: str) -> int:
    """The seed of the request ``key``: attempts at one prompt differ, and the order of requests does not matter."""
    return int(key[:15], 16)
