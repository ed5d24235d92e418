"""What is asked over the network: the hub, and the endpoints of teachers and judges."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from email.message import Message
from http.client import HTTPException
from pathlib import Path
from typing import IO, Any, NamedTuple
from urllib.error import HTTPError, URLError
from urllib.request import HTTPRedirectHandler, Request, build_opener

from whichteacher.config import Study
from whichteacher.doctor.findings import Finding
from whichteacher.doctor.models import hub_data, hub_models, hub_weights

_SECONDS = 5.0
_BODY_BYTES = 2**22
_OFFLINE = ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE", "HF_DATASETS_OFFLINE")
_SHOWN = 3


class Hub(NamedTuple):
    """The hub as this machine sees it: where its files are kept, why nothing can be had of it (``barrier``, empty where it answers;
    ``detail``: the fault as reported), whether there is a token."""

    cache: Path
    barrier: str
    detail: str
    token: bool

    def has(self, kind: str, name: str, revision: str) -> bool:
        """Whether a snapshot of this commit lies in the cache; ``kind`` is ``models`` or ``datasets``."""
        return (self.cache / f"{kind}--{name.replace('/', '--')}" / "snapshots" / revision).is_dir()


class _NoRedirect(HTTPRedirectHandler):
    """Follows nobody: the key must not go to another host."""

    def redirect_request(
        self, req: Request, fp: IO[bytes], code: int, msg: str, headers: Message, newurl: str
    ) -> Request | None:
        return None


def ask(address: str, secret: str | None = None, method: str = "GET") -> tuple[int, bytes]:
    """Status and body of one request. Raises :class:`OSError` where there is no answer."""
    headers = {"User-Agent": "whichteacher"} | ({"Authorization": f"Bearer {secret}"} if secret else {})
    try:
        with build_opener(_NoRedirect).open(
            Request(address, headers=headers, method=method), timeout=_SECONDS
        ) as answer:
            return answer.status, answer.read(_BODY_BYTES)
    except HTTPError as error:
        with error:
            return error.code, b""
    except URLError as error:
        raise OSError(str(error.reason)) from None
    except HTTPException as error:
        raise OSError(f"what it answers is no HTTP: {type(error).__name__}") from None


def read_hub() -> Hub:
    """The hub that this machine's settings name; one short request."""
    from huggingface_hub import constants, get_token

    offline = [name for name in _OFFLINE if os.environ.get(name, "").upper() in ("1", "ON", "TRUE", "YES")]
    barrier, detail = (f"{offline[0]} is set", "") if offline else ("", "")
    if not offline:
        try:
            ask(constants.ENDPOINT, method="HEAD")
        except OSError as error:
            barrier, detail = "the hub cannot be reached", f" ({constants.ENDPOINT}: {error})"
    return Hub(Path(constants.HF_HUB_CACHE), barrier, detail, bool(get_token()))


def needs_hub(study: Study) -> bool:
    """Whether the study names a model or a data set of a hub."""
    return bool(hub_models(study) or hub_data(study))


def missing_weights(study: Study, hub: Hub) -> list[str]:
    """Hub ids of the models that are loaded and are not in the cache."""
    return sorted(name for name, revision in hub_weights(study) if not hub.has("models", name, revision))


def check_hub(study: Study, hub: Hub) -> list[Finding]:
    """Whether what the study takes from a hub is in the cache or can be fetched."""
    wanted = {"models": hub_models(study), "datasets": hub_data(study)}
    # A data set stands there once for each of its subsets.
    lacking = list(
        dict.fromkeys(
            name
            for kind, named in wanted.items()
            for name, revision in sorted(named)
            if not hub.has(kind, name, revision)
        )
    )
    if not lacking:
        findings = [Finding("hub", "ok", "every model and data set is in the cache")]
    elif hub.barrier:
        more = f" and {len(lacking) - _SHOWN} more" if len(lacking) > _SHOWN else ""
        text = f"{hub.barrier}{hub.detail}, and {', '.join(lacking[:_SHOWN])}{more} are not in its cache here"
        findings = [
            Finding(
                "hub",
                "fault",
                text,
                "fetch them into it (HF_HOME) where there is a way to the hub, or name local folders",
            )
        ]
    else:
        findings = [Finding("hub", "ok", f"reached; {len(lacking)} models and data sets are yet to be fetched")]
    if lacking and not hub.token:
        text = "none set: models and data sets that ask for consent will not be given out"
        findings.append(Finding("hub token", "warning", text, "set HF_TOKEN where the study names one of these"))
    return findings


def check_endpoints(study: Study) -> list[Finding]:
    """Whether each endpoint answers, and knows the key and the model; the key is never shown."""
    served = {f"teachers.{name}": each for name, each in study.teachers.items()}
    served |= {f"verification.judges.{name}": each for name, each in study.verification.judges.items()}
    return [
        check_endpoint(f"endpoint of {key}", each.endpoint.model_dump(), each.endpoint.served_model or each.model)
        for key, each in served.items()
        if each.endpoint is not None
    ]


def check_endpoint(name: str, endpoint: Mapping[str, Any], model: str) -> Finding:
    """One endpoint: its key, and one request for the list of its models."""
    variable, base = endpoint["api_key_env"], endpoint["base_url"].rstrip("/")
    secret = os.environ.get(variable, "").strip() if variable else None
    if variable and not secret:
        return Finding(name, "fault", f"its key should be in {variable}, which is not set", f"export {variable}=<key>")
    try:
        status, body = ask(f"{base}/models", secret)
    except OSError as error:
        return Finding(name, "fault", f"{base} cannot be reached ({error})", "start the server, or correct base_url")
    if status in (401, 403):
        remedy = f"put a valid key into {variable}" if variable else "name the variable with its key in api_key_env"
        return Finding(name, "fault", f"{base} refuses us (status {status})", remedy)
    if status == 404:
        text = f"{base} answers, and has no /models (status 404)"
        return Finding(name, "warning", text, "see that base_url ends as the server's does, mostly in /v1")
    if status != 200:
        return Finding(name, "warning", f"{base} answers with status {status}", "ask again when the server is well")
    known = _model_names(body)
    if known is not None and model not in known:
        shown = ", ".join(known[:_SHOWN]) or "none"
        return Finding(name, "warning", f"{base} does not list {model} (it lists {shown})", "correct served_model")
    return Finding(name, "ok", f"{base} answers{'' if known is None else f' and lists {model}'}")


def _model_names(body: bytes) -> list[str] | None:
    try:
        return [str(model["id"]) for model in json.loads(body)["data"]]
    except (ValueError, KeyError, TypeError):
        return None
