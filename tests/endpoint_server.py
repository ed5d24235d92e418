"""An OpenAI-compatible server for tests: answers that follow from prompt and seed alone, and faults on demand.

``with EndpointServer(faults=0.3) as server`` listens at ``server.url`` on a free port of the loopback interface. Which tries
fail, and how, follows from the server's seed, the request and the number of the try.
"""

import hashlib
import json
import os
import random
import select
import socket
import struct
import threading
import time
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

#: A fault by its name, with the status it is told by (0: by no status).
STATUSES = {"timed out": 408, "conflict": 409, "throttled": 429, "broken": 500, "overloaded": 503}
BODIES = {
    "empty body": b"",
    "no JSON": b"<html>Bad gateway</html>",
    "half JSON": b'{"choices": [{"finish_reason": "st',
    "no choices": b'{"error": {"message": "the provider is away"}}',
    "empty choices": b'{"choices": []}',
    "no object": b'["choices"]',
    "no text": b'{"choices": [{"finish_reason": "stop", "message": {"role": "assistant"}}]}',
    "text of no text": b'{"choices": [{"finish_reason": "stop", "message": {"content": 7}, "text": 7}]}',
    "no finish_reason": b'{"choices": [{"message": {"content": "a"}, "text": "a"}]}',
    "finish_reason null": b'{"choices": [{"finish_reason": null, "message": {"content": "a"}, "text": "a"}]}',
    "broken off": b'{"choices": [{"finish_reason": "abort", "message": {"content": "a"}, "text": "a"}]}',
}
CONNECTIONS = ("reset", "hang-up", "silence", "stall", "trickle")
FAULTS = (*STATUSES, *BODIES, *CONNECTIONS)


@dataclass(frozen=True)
class Seen:
    """A request as it arrived; ``tried`` counts earlier tries of the same body."""

    at: float
    path: str
    headers: dict[str, str]
    body: dict[str, Any]
    tried: int


@dataclass(frozen=True)
class Reply:
    """An answer of a test's own: a value that is sent as JSON."""

    body: Any
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)


def prompt_of(body: dict[str, Any]) -> str:
    """What a request asks: its prompt, or its messages as JSON."""
    return body["prompt"] if "prompt" in body else json.dumps(body["messages"], ensure_ascii=False)


def write_text(prompt: str, seed: int) -> str:
    """The server's text, in the format of the study."""
    value = hashlib.sha256(f"{seed} {prompt}".encode()).hexdigest()
    return f"<think>{value}</think><answer>\\boxed{{{int(value[:3], 16)}}}</answer>"


def answer_to(body: dict[str, Any], text: str, **changes: Any) -> dict[str, Any]:
    """A whole answer to a request, ``changes`` to its choice included."""
    said = {"text": text} if "prompt" in body else {"message": {"role": "assistant", "content": text}}
    counts = {"prompt_tokens": len(prompt_of(body).split()), "completion_tokens": len(text.split())}
    return {"choices": [{"index": 0, "finish_reason": "stop", **said, **changes}], "usage": counts}


class EndpointServer:
    """The server. ``faults`` is the share of tries that fail, in the ways ``kinds`` names; ``write`` writes the texts.

    ``decide`` comes first: called with each :class:`Seen`, it gives the name of a fault, a :class:`Reply`, or None for the usual.
    ``about`` is what GET paths answer. While ``gate`` is cleared, requests wait.
    """

    def __init__(
        self,
        faults: float = 0.0,
        kinds: tuple[str, ...] = FAULTS,
        seed: int = 0,
        write: Callable[[str, int], str] = write_text,
        decide: Callable[[Seen], str | Reply | None] = lambda seen: None,
        about: dict[str, Any] | None = None,
    ) -> None:
        self.faults, self.kinds, self.seed, self.write, self.decide = faults, kinds, seed, write, decide
        self.about = about or {}
        self.asked_about: list[str] = []
        self.seen: list[Seen] = []
        self.completed: list[Seen] = []  # those whose answer went out whole
        self.failed: Counter[str] = Counter()
        self.under_way = self.most_under_way = self.abandoned = 0
        self.gate = threading.Event()
        self.gate.set()
        self.closing = threading.Event()
        self._changed = threading.Condition()
        self._tries: Counter[str] = Counter()
        self._connections: set[socket.socket] = set()

    def __enter__(self) -> "EndpointServer":
        self._http = _Http(("127.0.0.1", 0), _Handler)
        self._http.endpoint = self
        self.url = f"http://127.0.0.1:{self._http.server_port}/v1"
        self._thread = threading.Thread(target=self._http.serve_forever, args=(0.05,), name="endpoint server")
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        if not self.closing.is_set():
            self.close()

    def close(self) -> None:
        """Stop listening and cut every connection."""
        self.closing.set()
        self._http.shutdown()
        for connection in list(self._connections):
            with suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
        self._http.server_close()  # waits for the threads
        self._thread.join()

    def wait_until(self, true: Callable[[], bool], seconds: float = 30.0) -> None:
        """Wait until ``true()``; fail after ``seconds``."""
        with self._changed:
            assert self._changed.wait_for(true, seconds), "the server waited in vain"

    def arrive(self, path: str, headers: dict[str, str], body: dict[str, Any]) -> Seen:
        """Note a request."""
        with self._changed:
            identity = json.dumps([path, body], sort_keys=True)
            seen = Seen(time.monotonic(), path, headers, body, self._tries[identity])
            self._tries[identity] += 1
            self.seen.append(seen)
            self.under_way += 1
            self.most_under_way = max(self.most_under_way, self.under_way)
            self._changed.notify_all()
        return seen

    def leave(self, seen: Seen, fault: str | None, abandoned: bool) -> None:
        """Note the end of a request."""
        with self._changed:
            self.under_way -= 1
            self.abandoned += abandoned
            if fault:
                self.failed[fault] += 1
            elif not abandoned:
                self.completed.append(seen)
            self._changed.notify_all()

    def outcome(self, seen: Seen) -> str | Reply:
        """What becomes of a request: the name of a fault, or the reply."""
        decided = self.decide(seen)
        if decided is not None:
            return decided
        chance = random.Random(f"{self.seed} {seen.tried} {json.dumps(seen.body, sort_keys=True)}")
        if chance.random() < self.faults:
            return chance.choice(self.kinds)
        return Reply(answer_to(seen.body, self.write(prompt_of(seen.body), seen.body["seed"])))


class _Http(ThreadingHTTPServer):
    endpoint: EndpointServer
    daemon_threads = False
    request_queue_size = 512

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Say nothing: clients that hang up are part of the tests."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    server: _Http

    def setup(self) -> None:
        super().setup()
        self.server.endpoint._connections.add(self.connection)

    def finish(self) -> None:
        self.server.endpoint._connections.discard(self.connection)
        super().finish()

    def log_message(self, *_: Any) -> None:
        """Keep the tests' output clean."""

    def do_GET(self) -> None:
        self.server.endpoint.asked_about.append(self.path)
        told = self.server.endpoint.about.get(self.path)
        self._send(200 if told else 404, json.dumps(told or {}).encode())

    def do_POST(self) -> None:
        endpoint = self.server.endpoint
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        seen = endpoint.arrive(self.path, {name.lower(): value for name, value in self.headers.items()}, body)
        fault, abandoned = None, True
        try:
            if self._waits_for(endpoint.gate):
                outcome = endpoint.outcome(seen)
                if isinstance(outcome, str):
                    fault = outcome
                    self._fail(outcome)
                else:
                    self._send(outcome.status, json.dumps(outcome.body).encode(), outcome.headers)
                    fault = None if outcome.status == 200 else str(outcome.status)
                abandoned = False
        finally:
            endpoint.leave(seen, fault, abandoned)

    def _send(self, status: int, body: bytes, headers: dict[str, str] | None = None, length: int | None = None) -> None:
        self.send_response(status)
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body) if length is None else length))
        self.end_headers()
        self.wfile.write(body)

    def _waits_for(self, event: threading.Event) -> bool:
        """Whether ``event`` comes before the client hangs up or the server closes."""
        while not event.is_set():
            readable, _, _ = select.select([self.connection], [], [], 0.02)
            if self.server.endpoint.closing.is_set() or (readable and not self.connection.recv(1, socket.MSG_PEEK)):
                self.close_connection = True
                return False
        return True

    def _fail(self, fault: str) -> None:
        never = threading.Event()
        if fault in STATUSES:
            told = json.dumps({"error": {"message": f"told to be {fault}"}}).encode()
            self._send(STATUSES[fault], told, {"Retry-After": "0"} if fault == "throttled" else None)
        elif fault in BODIES:
            self._send(200, BODIES[fault])
        elif fault == "reset":
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self.close_connection = True
            os.close(self.connection.detach())
        elif fault == "hang-up":
            self._send(200, b'{"choices": [', length=100)
            self.close_connection = True
        elif fault == "silence":
            self._waits_for(never)
        elif fault == "stall":
            self._send(200, b'{"choices": [', length=100)
            self._waits_for(never)
        else:  # a byte now and then keeps the connection alive, and the answer never comes
            self._send(200, b'{"choices": [', length=1_000_000)
            with suppress(OSError):
                while not self.server.endpoint.closing.wait(0.05):
                    self.wfile.write(b" ")
            self.close_connection = True
