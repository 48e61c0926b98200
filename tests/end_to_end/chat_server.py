"""A chat endpoint on this machine that misbehaves as scripted, and counts what it is asked."""

from __future__ import annotations

import json
import re
import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any, Self

TRANSPORT = ("429", "500", "hang", "half", "cut")
"""Faults on the way: the answer has to be asked for again. `half`: half a JSON; `cut`: half of the announced bytes."""
CONTENT = ("wrong_language", "empty")
"""Odd answers: they are what the model has to say, and come again if it is asked again."""
CODES = {"Chinese": "zh", "French": "fr", "German": "de"}

Plan = Callable[[str, str], Sequence[str]]
"""(caption, language) -> the fault of each attempt at it; a fault of CONTENT or a "status400" stands last and stays."""


def good(caption: str, language: str) -> str:
    """What the server says when it is well."""
    return {"zh": f"译文：{caption}", "fr": f"Traduction : {caption}", "de": f"Übersetzung: {caption}"}[language]


class _Quiet(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Clients are killed on purpose."""


class ChatServer:
    """Serves `/v1/chat/completions` from threads of this process, on a free port.

    Attributes:
        requests: how often each (caption, language) was asked.
        faults: how often each fault was given.
        headers: of the last request, names in small letters.
        bodies: of all requests.
        moments: when each request came, in seconds.
        say: the good answer to a (caption, language).
        location, retry_after: headers that come with a status.
        on_request: called with the number of requests so far, at each.
        at_once: requests under way at a time at most.
    """

    def __init__(self, plan: Plan | None = None, *, delay: float = 0.0, hang: float = 30.0) -> None:
        self.plan = plan or (lambda caption, language: ())
        self.delay, self.hang = delay, hang
        self.requests: Counter[tuple[str, str]] = Counter()
        self.faults: Counter[str] = Counter()
        self.headers: dict[str, str] = {}
        self.bodies: list[dict[str, Any]] = []
        self.moments: list[float] = []
        self.at_once = 0
        self.say = good
        self.location, self.retry_after = "", "0.1"
        self.on_request: Callable[[int], None] = lambda count: None
        self._under_way = 0
        self._lock = threading.Lock()
        self._closing = threading.Event()
        self._server = _Quiet(("127.0.0.1", 0), self._handler())
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_address[1]}/v1"

    @property
    def total(self) -> int:
        """All requests so far."""
        return self.requests.total()

    @property
    def transport_faults(self) -> int:
        """Requests that could not be answered, whoever asked."""
        return sum(self.faults[fault] for fault in TRANSPORT)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._closing.set()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def _next(self, body: dict[str, Any]) -> tuple[str, str, str]:
        """Caption, language, and the fault of this attempt ("" for none)."""
        text = body["messages"][0]["content"]
        caption = text[text.index('"') + 1 : text.rindex('"')]
        found = re.search(r"into (\w+)", text)
        assert found is not None, text
        language = CODES[found[1]]
        with self._lock:
            place = self.requests[caption, language]
            self.requests[caption, language] += 1
            script = self.plan(caption, language)
            last = script[-1] if script and (script[-1] in CONTENT or script[-1].startswith("status")) else ""
            fault = script[place] if place < len(script) else last
            self.faults[fault] += 1
            self.bodies.append(body)
            self.moments.append(time.monotonic())
            self._under_way += 1
            self.at_once = max(self.at_once, self._under_way)
            count = self.total
        self.on_request(count)
        return caption, language, fault

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        chat = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def log_message(self, format: str, *arguments: Any) -> None:
                pass

            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                chat.headers = {name.lower(): value for name, value in self.headers.items()}
                caption, language, fault = chat._next(body)
                try:
                    time.sleep(chat.delay)
                    self._answer(caption, language, fault)
                except (BrokenPipeError, ConnectionResetError):
                    self.close_connection = True  # the client was killed
                finally:
                    with chat._lock:
                        chat._under_way -= 1

            def _answer(self, caption: str, language: str, fault: str) -> None:
                if fault == "429":
                    self._send(429, b'{"error": {"message": "too many requests"}}', {"Retry-After": chat.retry_after})
                elif fault == "500":
                    self._send(500, b"<html>Internal Server Error</html>")
                elif fault == "hang":
                    self.close_connection = True
                    chat._closing.wait(chat.hang)
                elif fault.startswith("status"):
                    status, message = int(fault.removeprefix("status")), b'{"error": {"message": "not\\nthis one"}}'
                    self._send(status, message, {"Location": chat.location} if chat.location else None)
                else:
                    text = {"wrong_language": caption, "empty": ""}.get(fault, chat.say(caption, language))
                    content = _completion(text)
                    announced = {"Content-Length": str(len(content))} if fault == "cut" else {}
                    self.close_connection = fault == "cut"
                    self._send(200, content[: len(content) // 2] if fault in ("half", "cut") else content, announced)

            def _send(self, status: int, content: bytes, headers: dict[str, str] | None = None) -> None:
                self.send_response(status)
                common = {"Content-Type": "application/json", "Content-Length": str(len(content))}
                for name, value in {**common, **(headers or {})}.items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(content)

        return Handler


def _completion(text: str) -> bytes:
    message = {"role": "assistant", "content": text}
    tree = {
        "choices": [{"index": 0, "message": message, "finish_reason": "stop"}],
        "usage": {"prompt_tokens": 30, "completion_tokens": len(text)},
    }
    return json.dumps(tree, ensure_ascii=False).encode()
