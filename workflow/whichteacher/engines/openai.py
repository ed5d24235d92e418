"""A model behind an OpenAI-compatible endpoint, asked through the ``openai`` client.

The client's own retries are switched off: they know nothing of bodies that stall, break off or hold no answer, and their tries
would start past the rate limit. Retries, pace and window are here.
"""

from __future__ import annotations

import asyncio
import json
import logging
import math
import os
import random
import re
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from email.utils import parsedate_to_datetime
from importlib import metadata
from typing import Any

from whichteacher.engines.specs import Completion, OpenaiSpec, request_seed
from whichteacher.rule import InputError

#: The first pause before a further try lasts at most this long, every later one at most twice the one before it.
RETRY_BASE_SECONDS = 1.0
RETRY_CAP_SECONDS = 60.0
#: Where an answer comes without a count of its tokens, they are estimated: so many bytes of UTF-8 make one. English has
#: about four letters to a token, Chinese about one and a half characters of three bytes.
BYTES_PER_TOKEN = 4

_PASSING = {408, 409, 429}  # and all from 500 on
_REFUSING = {400, 413, 422}
#: Words of vLLM, SGLang and OpenRouter for an answer that the server, not the model, broke off.
_BROKEN_OFF = {"abort", "error"}
#: So many refusals without an answer between them, and the settings are tried on a plain request.
_SUSPICIOUS = 20
_PLAIN_REQUEST = "Say hello."
_CONNECT_SECONDS = 30.0
#: Servers close an idle connection after five seconds or more (uvicorn: five); one taken up at that moment would fail.
_IDLE_SECONDS = 3.0
_ABOUT_SECONDS = 10.0
_MESSAGE_CHARS = 500


class OpenaiEngine:
    """An endpoint, ready to be asked.

    Raises :class:`InputError` where the client is not installed or the variable that should hold the key is not set.
    """

    def __init__(self, spec: OpenaiSpec) -> None:
        self.spec = spec
        self._secret = _secret(spec.api_key_env)
        try:
            version = f"openai {metadata.version('openai')}"
        except metadata.PackageNotFoundError:
            raise InputError(
                "the openai client is not installed in this rule's environment: run `make setup`, or use --sdm conda"
            ) from None
        # It tells of every request otherwise, and there may be a million.
        logging.getLogger("httpx2").setLevel(logging.WARNING)
        about = _about_server(spec, self._secret)
        self.facts = {
            "engine": "openai",
            "engine_version": f"{version}, {about}" if about else version,
            "hardware": "endpoint",
            "devices": None,
        }

    def run(self, missing: Mapping[str, str]) -> Iterator[Completion]:
        """A completion for each key of ``missing`` (key: rendered prompt), as they finish.

        What the server refuses comes back as such, not durable. Raises :class:`InputError` where the server refuses everything
        or the caller, and, once all others are answered or the server seems dead, where requests stayed without an answer.
        """
        patience = max(2 * self.spec.concurrency, 20)
        answered = failed = in_a_row = 0
        left, last = len(missing), ""
        refused: Counter[str] = Counter()
        with asyncio.Runner() as runner:
            asking = _Asking(self.spec, self._secret, missing)
            try:
                runner.run(asking.start())
                while left and in_a_row < patience:
                    # The loop stands still while there are outcomes to hand over, so that they cannot pile up.
                    ready = not asking.outcomes.empty()
                    key, outcome = asking.outcomes.get_nowait() if ready else runner.run(asking.outcomes.get())
                    left -= 1
                    if isinstance(outcome, _Fault):
                        failed, in_a_row, last = failed + 1, in_a_row + 1, str(outcome)
                        continue
                    in_a_row = 0
                    if isinstance(outcome, _Refused):
                        _count(refused, str(outcome))
                        if not answered and refused.total() == _SUSPICIOUS:
                            runner.run(asking.try_settings())
                        yield Completion(key, "", None, "refused", 0, 0, durable=False)
                    elif isinstance(outcome, Completion):
                        answered += 1
                        yield outcome
                    else:
                        raise outcome
            finally:
                runner.run(asking.stop())
                for message, count in refused.items():
                    print(f"the endpoint refused {count} requests: {message}")
                if asking.uncounted:
                    print(
                        f"{asking.uncounted} answers came without their tokens: bytes / {BYTES_PER_TOKEN} stands for them"
                    )
        if failed:
            rest = ", and the rest were given up" if left else ""
            raise InputError(
                f"{failed} of {len(missing)} requests got no answer after {self.spec.retries + 1} tries (last: {last}){rest}: "
                "what was answered is stored: start again when the endpoint is well"
            )


class _Fault(Exception):
    """A try got no answer, and another may get one; the server asks to be left alone for ``wait`` seconds."""

    def __init__(self, message: str, wait: float = 0.0) -> None:
        super().__init__(message)
        self.wait = wait


class _Refused(Exception):
    """The server will not answer this request; the message is the server's."""


class _Asking:
    """The requests of one run, ``concurrency`` at a time, in the event loop that the caller steps.

    Each ends as one pair in ``outcomes``: its key with the :class:`Completion`, or with why there is none.
    """

    def __init__(self, spec: OpenaiSpec, secret: str | None, missing: Mapping[str, str]) -> None:
        from httpx2 import Limits
        from openai import AsyncOpenAI, DefaultAsyncHttpxClient, Timeout

        self.outcomes: asyncio.Queue[tuple[str, Completion | Exception]] = asyncio.Queue()
        self.uncounted = 0
        self._spec, self._secret = spec, secret
        self._items = iter(missing.items())
        self._tasks: list[asyncio.Task[None]] = []
        self._workers = min(spec.concurrency, len(missing))
        self._interval = 60.0 / spec.requests_per_minute if spec.requests_per_minute else 0.0
        self._next_start = 0.0
        self._starting = asyncio.Lock()
        # The window is what bounds the connections: a pool of its own size would have requests wait inside their time-outs.
        limits = Limits(
            max_connections=None, max_keepalive_connections=spec.concurrency, keepalive_expiry=_IDLE_SECONDS
        )
        self._client = AsyncOpenAI(
            **_access(spec, secret),
            timeout=Timeout(None, connect=_CONNECT_SECONDS),
            http_client=DefaultAsyncHttpxClient(limits=limits),
        )
        chat = spec.api == "chat"
        self._create = (self._client.chat.completions if chat else self._client.completions).with_raw_response.create

    async def start(self) -> None:
        """Set the requests going."""
        self._tasks = [asyncio.create_task(self._work()) for _ in range(self._workers)]

    async def stop(self) -> None:
        """Drop whatever is under way."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._client.close()

    async def try_settings(self) -> None:
        """Raise :class:`InputError` where the server refuses a plain request too.

        Refusals alone prove nothing: they are the quickest answers, and all that is asked again after an interrupted run or in a
        later round may be requests that were refused before.
        """
        plain = _PLAIN_REQUEST
        if self._spec.api == "chat":
            plain = json.dumps([{"role": "user", "content": plain}])
        try:
            await self._answer("0" * 64, plain)
        except _Refused as error:
            raise InputError(
                f"the endpoint refuses every request, a plain one too ({error}): correct the sampling or endpoint.extra_body"
            ) from None
        except _Fault:
            return  # settles nothing; if the server is dying, the others will tell
        print("the endpoint answers a plain request: those that it refuses are at fault themselves")

    async def _work(self) -> None:
        for key, prompt in self._items:
            try:
                outcome: Completion | Exception = await self._answer(key, prompt)
            except (_Fault, _Refused) as error:
                outcome = error
            except Exception as error:  # told where it is raised: nobody would hear it from a task
                self.outcomes.put_nowait((key, error))
                return
            self.outcomes.put_nowait((key, outcome))

    async def _answer(self, key: str, prompt: str) -> Completion:
        """The answer to one request, after as many tries as it takes. Raises the last :class:`_Fault` where all failed."""
        for tried in range(self._spec.retries):
            try:
                return await self._try(key, prompt)
            except _Fault as fault:
                await asyncio.sleep(pause(tried, fault.wait))
        return await self._try(key, prompt)

    async def _try(self, key: str, prompt: str) -> Completion:
        from openai import APIConnectionError, APIStatusError

        await self._turn()
        try:
            # Of the whole answer: the client's own time-outs begin anew with every byte.
            async with asyncio.timeout(self._spec.timeout_seconds):
                raw = await self._create(**_arguments(self._spec, key, prompt))
        except TimeoutError:
            raise _Fault(f"no answer within {self._spec.timeout_seconds:g} s") from None
        except APIConnectionError as error:
            cause = error.__cause__ or error
            raise _Fault(f"the connection failed: {type(cause).__name__} {self._shown(str(cause))}".rstrip()) from None
        except APIStatusError as error:
            raise self._complaint(error) from None
        completion, counted = read_answer(raw.content, self._spec.api, key, prompt)
        self.uncounted += not counted
        return completion

    async def _turn(self) -> None:
        """Wait until the rate limit lets another request start."""
        if self._interval:
            async with self._starting:  # first come, first served
                await asyncio.sleep(self._next_start - time.monotonic())
                self._next_start = time.monotonic() + self._interval

    def _complaint(self, error: Any) -> Exception:
        """What a status that is no success means for the request, or for them all."""
        status, message = error.status_code, self._shown(_server_message(error.body) or error.message)
        if status in _PASSING or status >= 500:
            return _Fault(f"status {status}: {message}", _retry_after(error.response.headers.get("retry-after")))
        if status in _REFUSING:
            return _Refused(message)
        return InputError(
            f"the endpoint turns us away with status {status} ({message}): check endpoint.base_url, "
            "endpoint.api_key_env and endpoint.served_model"
        )

    def _shown(self, message: str) -> str:
        """``message`` in one line of bounded length; a server may repeat the key, the log must not."""
        if self._secret:
            message = message.replace(self._secret, "***")
        return " ".join(message.split())[:_MESSAGE_CHARS]


def pause(tried: int, wait: float) -> float:
    """Seconds until the next try after ``tried`` + 1 of them: at least the ``wait`` that the server asks for, else random up
    to a bound that doubles, so that those who failed together do not come back together; never above the cap."""
    # https://aws.amazon.com/blogs/architecture/exponential-backoff-and-jitter ("full jitter")
    bound = min(RETRY_CAP_SECONDS, RETRY_BASE_SECONDS * 2 ** min(tried, 30))
    return min(RETRY_CAP_SECONDS, max(wait, random.uniform(0, bound)))


def read_answer(body: bytes, api: str, key: str, prompt: str) -> tuple[Completion, bool]:
    """The completion in the body of an answer, and whether the server counted its tokens.

    Raises :class:`_Fault` where the body holds no answer.
    """
    if not body.strip():
        raise _Fault("an empty body")
    try:
        answer = json.loads(body)
    except ValueError:
        raise _Fault("a body that is no JSON") from None
    try:
        choice = answer["choices"][0]
        finish_reason = choice["finish_reason"]
        said = choice["message"] if api == "chat" else choice
        # Of the servers that hand the reasoning over apart, older ones call it reasoning_content; many leave "" for none.
        reasoning = said.get("reasoning_content") or said.get("reasoning") or None
        name = "content" if api == "chat" else "text"
        text = said.get(name) if reasoning else said[name]
    except (AttributeError, IndexError, KeyError, TypeError):
        message = _server_message(answer.get("error")) if isinstance(answer, dict) else ""
        raise _Fault(f"an answer without choices, text or finish_reason{f': {message}' if message else ''}") from None
    if text is None and api == "chat":
        text = ""
    if not isinstance(text, str) or not isinstance(reasoning, str | None) or not isinstance(finish_reason, str):
        raise _Fault("an answer whose text or finish_reason is no text")
    if not finish_reason or finish_reason in _BROKEN_OFF:
        raise _Fault(f"an answer that broke off (finish_reason {finish_reason!r})")
    text, reasoning = _writable(text), None if reasoning is None else _writable(reasoning)
    usage = answer.get("usage")
    told = [usage.get(name) if isinstance(usage, dict) else None for name in ("prompt_tokens", "completion_tokens")]
    counts = [
        count if isinstance(count, int) else math.ceil(len(source.encode()) / BYTES_PER_TOKEN)
        for count, source in zip(told, (prompt, (reasoning or "") + text), strict=True)
    ]
    return Completion(key, text, reasoning, finish_reason, *counts), counts == told


def _writable(text: str) -> str:
    """``text`` with U+FFFD for half characters: JSON can hold one (an escaped surrogate), a file of UTF-8 cannot."""
    return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")


def _arguments(spec: OpenaiSpec, key: str, prompt: str) -> dict[str, Any]:
    """The arguments of the client's ``create``. What ``extra_body`` names takes the place of what stands beside it."""
    sampling = {name: value for name, value in spec.sampling.items() if value is not None}
    top_k = sampling.pop("top_k", -1)
    return {
        "model": spec.served_model,
        **({"messages": json.loads(prompt)} if spec.api == "chat" else {"prompt": prompt}),
        **sampling,
        "seed": request_seed(key),
        "extra_body": ({} if top_k == -1 else {"top_k": top_k}) | spec.extra_body,
    }


def _secret(variable: str | None) -> str | None:
    """The key in the environment ``variable``, None where there is none. Raises :class:`InputError` where it is not set."""
    if variable is None:
        return None
    secret = os.environ.get(variable, "").strip()
    if not secret:
        raise InputError(
            f"endpoint.api_key_env names the environment variable {variable}, which is not set: set it to the key, or remove "
            "the setting where the endpoint takes no key"
        )
    return secret


def _access(spec: OpenaiSpec, secret: str | None) -> dict[str, Any]:
    """Arguments of a client of the endpoint; it insists on a key, also where nobody asks for one."""
    return {"base_url": spec.base_url, "api_key": secret or "none", "max_retries": 0}


def _about_server(spec: OpenaiSpec, secret: str | None) -> str:
    """What the server says of itself, empty where it says nothing: who serves the model, and of vLLM the version."""
    from openai import OpenAI

    with OpenAI(**_access(spec, secret), timeout=_ABOUT_SECONDS) as client:
        try:
            models = client.get("/models", cast_to=object)["data"]
            (owner,) = (model["owned_by"] for model in models if model["id"] == spec.served_model)
            if owner != "vllm":
                return f"served by {owner}"
            root = spec.base_url.rstrip("/").removesuffix("/v1")
            return f"vllm {client.get(f'{root}/version', cast_to=object)['version']}"
        except Exception:  # a note that decides nothing: whatever is wrong here, the requests will tell
            return ""


def _server_message(body: Any) -> str:
    """The server's own words in the body of an error, empty where there are none."""
    if isinstance(body, dict):
        inner = body.get("message") or body.get("detail") or body.get("error") or body
        return inner if isinstance(inner, str) else json.dumps(inner, ensure_ascii=False)
    return body if isinstance(body, str) else ""


def _retry_after(header: str | None) -> float:
    """The seconds of a Retry-After header (a number of them, or a date), 0.0 where it is absent or unreadable."""
    try:
        return max(0.0, float(header or ""))
    except ValueError:
        pass
    try:
        return max(0.0, parsedate_to_datetime(header or "").timestamp() - time.time())
    except ValueError:
        return 0.0


def _count(refused: Counter[str], message: str) -> None:
    """Count a refusal, and print the first of its kind: messages that differ in numbers alone (of tokens) are of a kind."""
    kind = re.sub(r"\d+", "#", message)
    if kind not in refused:
        print(f"the endpoint refuses a request: {message}")
    refused[kind] += 1
