"""Any OpenAI-compatible chat endpoint as a text backend: bounded concurrency, retries, a cache of answers.

Captions go to the one address that was named and to nowhere else: redirects are refused, pictures are never sent.

What is asked again is what went wrong on the way: no connection, no answer in time, 408, 409, 425, 429, 5xx, a body
that is not the JSON of an answer. What the model says is data, also when it is empty or in the wrong language: asked
again in the same words it would say the same, and the filter catches it by rule.
"""

from __future__ import annotations

import asyncio
import json
import math
import random
import time
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any

import httpx2

from tipr.errors import ConfigError, EndpointError
from tipr.translation.answers import AnswerCache, request_sha256
from tipr.translation.backends import Answer, Prompt, Take

URL_VARIABLE = "TIPR_TRANSLATE_URL"
"""Environment variable with the address, such as https://host/v1."""
KEY_VARIABLE = "TIPR_TRANSLATE_KEY"
"""Environment variable with the key; it is sent to the address above and written nowhere."""
TRANSIENT = frozenset({408, 409, 425, 429})
"""Answers below 500 after which the same request may succeed."""
HOPELESS = {
    401: f"refuses the key: set {KEY_VARIABLE}",
    402: "asks for payment",
    403: f"forbids the request: see the rights of {KEY_VARIABLE}",
    404: f"knows no such address or model: see {URL_VARIABLE} and --model",
    405: f"takes no questions at this address: see {URL_VARIABLE}",
}
"""Answers after which no other request would fare better."""
LONGEST_WAIT = 60.0
"""Seconds between two attempts at most, unless the server asks for more."""
LONGEST_QUIET = 600.0
"""Seconds of quiet that a server may ask for; for more, such as until a daily quota is renewed, the work stops."""
FAILURES_IN_A_ROW = 10
"""Prompts without an answer, one after the other, after which the endpoint is taken for broken."""
CHAT = "/chat/completions"


@dataclass(frozen=True, slots=True)
class EndpointSettings:
    """Who is asked, and how.

    Attributes:
        url: address of the API, such as https://host/v1.
        model: name of the model there.
        key: sent as bearer token; None: none.
        concurrency: requests under way at a time; also what a kill can cost.
        attempts: requests for one prompt at most.
        timeout: seconds until a request without its whole answer is given up.
        first_wait: seconds before the second attempt; doubled for each one more, up to `LONGEST_WAIT`.
        temperature: of sampling; 0: the likeliest words.
        max_tokens: length of an answer at most.
        leave_unanswered: refusals of single prompts, such as by a content rule, are expected; otherwise
            `FAILURES_IN_A_ROW` of them stop the work, as silence does.

    Raises:
        ConfigError: the address is none.
    """

    url: str
    model: str
    key: str | None = field(default=None, repr=False)
    concurrency: int = 4
    attempts: int = 8
    timeout: float = 120.0
    first_wait: float = 0.5
    temperature: float = 0.0
    max_tokens: int = 1024
    leave_unanswered: bool = False

    def __post_init__(self) -> None:
        try:
            url = httpx2.URL(self.url)
        except httpx2.InvalidURL as error:
            raise ConfigError(f"{URL_VARIABLE}: {error}") from None
        if url.scheme not in ("http", "https") or not url.host or url.userinfo or url.query or url.fragment:
            raise ConfigError(f"{URL_VARIABLE} must be http(s)://HOST/PATH without name, key or question mark in it")

    @property
    def address(self) -> str:
        """Where requests go."""
        base = self.url.rstrip("/")
        return base if base.endswith(CHAT) else base + CHAT

    @property
    def host(self) -> str:
        """Host and port, for messages."""
        return httpx2.URL(self.url).netloc.decode()


class Endpoint:
    """A chat endpoint; a `TextBackend` and a `StreamingBackend`.

    Args:
        settings: who is asked.
        cache: answers known already; None: nothing is kept.

    Attributes:
        requests: made so far, failed ones too.
    """

    name = "endpoint"

    def __init__(self, settings: EndpointSettings, cache: AnswerCache | None = None) -> None:
        self.settings = settings
        self.cache = cache
        self.requests = 0
        self._quiet_until = 0.0
        self._in_a_row = 0

    def describe(self) -> dict[str, Any]:
        """See `TextBackend.describe`."""
        settings = self.settings
        return {
            "name": self.name,
            "host": httpx2.URL(settings.url).host,
            "model": settings.model,
            "temperature": settings.temperature,
            "max_tokens": settings.max_tokens,
        }

    def complete(self, prompts: Sequence[Prompt]) -> list[str]:
        """See `TextBackend.complete`.

        Raises:
            EndpointError: a prompt got no answer.
        """
        answers: dict[int, Answer] = {}
        self.stream(prompts, answers.__setitem__)
        for answer in answers.values():
            if answer.text is None:
                raise EndpointError(f"{self.settings.host}: {answer.error}")
        return [answers[place].text or "" for place in range(len(prompts))]

    def unknown(self, prompts: Sequence[Prompt]) -> list[Prompt]:
        """The prompts that would be sent: those without a known answer, each once."""
        different = {request_sha256(self._body(prompt)): prompt for prompt in prompts}
        return [prompt for key, prompt in different.items() if self.cache is None or key not in self.cache]

    def stream(self, prompts: Sequence[Prompt], take: Take) -> None:
        """See `StreamingBackend.stream`; equal prompts are sent once.

        Raises:
            ConfigError: a prompt has an image.
            EndpointError: the endpoint refuses all requests, or did not answer `FAILURES_IN_A_ROW` of them.
        """
        if any(prompt.image is not None for prompt in prompts):
            raise ConfigError("pictures are never sent to an endpoint: use a local vision-language model")
        places: dict[str, list[int]] = {}
        for place, prompt in enumerate(prompts):
            places.setdefault(request_sha256(self._body(prompt)), []).append(place)
        waiting: deque[str] = deque()
        for key, those in places.items():
            known = self.cache.get(key) if self.cache is not None else None
            if known is None:
                waiting.append(key)
            else:
                _hand_over(take, those, known)
        if not waiting:
            return

        def answered(key: str, answer: Answer) -> None:
            if self.cache is not None and answer.text is not None:
                self.cache.put(key, answer)
            _hand_over(take, places[key], answer)

        bodies = {key: self._body(prompts[places[key][0]]) for key in waiting}
        try:
            asyncio.run(self._ask_all(waiting, bodies, answered))
        finally:
            if self.cache is not None:
                self.cache.close()

    def _body(self, prompt: Prompt) -> dict[str, Any]:
        return {
            "model": self.settings.model,
            "messages": [{"role": "user", "content": prompt.text}],
            "temperature": self.settings.temperature,
            "max_tokens": self.settings.max_tokens,
        }

    async def _ask_all(self, waiting: deque[str], bodies: dict[str, dict[str, Any]], answered: Any) -> None:
        settings = self.settings
        headers = {"Authorization": f"Bearer {settings.key}"} if settings.key else {}
        workers = min(settings.concurrency, len(waiting))
        limits = httpx2.Limits(max_connections=workers, max_keepalive_connections=workers)
        # the whole request has one deadline below: a timeout between two bytes would let a slow drip go on for ever
        async with httpx2.AsyncClient(headers=headers, timeout=None, follow_redirects=False, limits=limits) as client:

            async def work() -> None:
                while waiting:
                    key = waiting.popleft()
                    answer = await self._ask(client, bodies[key])
                    self._judge(answer)
                    answered(key, answer)

            try:
                async with asyncio.TaskGroup() as group:
                    for _ in range(workers):
                        group.create_task(work())
            except BaseExceptionGroup as failures:
                raise failures.exceptions[0] from None

    async def _ask(self, client: httpx2.AsyncClient, body: dict[str, Any]) -> Answer:
        """One prompt, up to `attempts` requests."""
        start = time.monotonic()
        why = ""
        for attempt in range(1, self.settings.attempts + 1):
            await self._wait_for_quiet()
            self.requests += 1
            asked_for = 0.0
            try:
                async with asyncio.timeout(self.settings.timeout):
                    response = await client.post(self.settings.address, json=body)
            except TimeoutError:
                why = f"no answer within {self.settings.timeout:g} s"
            except httpx2.TransportError as error:
                why = f"{type(error).__name__}: {error}".rstrip(": ")
            else:
                status = response.status_code
                if status < 300:
                    answer = _read(response)
                    if answer is not None:
                        return replace(answer, attempts=attempt, seconds=time.monotonic() - start)
                    why = "the body is not the JSON of a chat answer"
                elif status in TRANSIENT or status >= 500:
                    why = f"status {status}{_reason(response)}"
                    asked_for = retry_after(response.headers.get("retry-after"))
                else:
                    self._stop_if_hopeless(response)
                    why = f"refused with status {status}{_reason(response)}"
                    return Answer(None, why, attempt, time.monotonic() - start, refused=True)
            if attempt < self.settings.attempts:
                await self._hold(asked_for, attempt)
        return Answer(None, f"{why}, after {attempt} attempts", attempt, time.monotonic() - start)

    async def _hold(self, asked_for: float, attempt: int) -> None:
        """Wait before the next attempt. What the server asked for holds for all workers: it is about its load."""
        if asked_for > LONGEST_QUIET:
            raise EndpointError(f"{self.settings.host} asks for {asked_for:,.0f} seconds of quiet: go on after that")
        if asked_for:
            self._quiet_until = max(self._quiet_until, time.monotonic() + asked_for)
            return
        wait = min(self.settings.first_wait * 2 ** (attempt - 1), LONGEST_WAIT)
        await asyncio.sleep(wait * random.uniform(0.5, 1.0))  # spread, or all workers come back at one moment

    async def _wait_for_quiet(self) -> None:
        while (left := self._quiet_until - time.monotonic()) > 0:
            await asyncio.sleep(left)

    def _stop_if_hopeless(self, response: httpx2.Response) -> None:
        """Stop for answers that every other request would get as well."""
        if response.status_code in HOPELESS:
            raise EndpointError(f"{self.settings.host} {HOPELESS[response.status_code]}{_reason(response)}")
        if response.status_code < 400:
            there = response.headers.get("location", "another address")
            raise EndpointError(
                f"{self.settings.host} sends the caption on to {there}; it was not followed: name that address in "
                f"{URL_VARIABLE} if captions may go there"
            )

    def _judge(self, answer: Answer) -> None:
        """Stop after too many failures in a row: the rest would fare no better."""
        if answer.error is None or (answer.refused and self.settings.leave_unanswered):
            self._in_a_row = 0
            return
        self._in_a_row += 1
        if self._in_a_row >= FAILURES_IN_A_ROW:
            raise EndpointError(
                f"{self.settings.host} did not answer {self._in_a_row} captions in a row, last: {answer.error}"
            )


def retry_after(value: str | None, *, now: datetime | None = None) -> float:
    """Seconds that a `Retry-After` header asks for (RFC 9110, 10.2.3; fractions are taken too); 0 when it is none."""
    if value is None:
        return 0.0
    try:
        seconds = float(value)
    except ValueError:
        try:
            moment = parsedate_to_datetime(value)
        except ValueError:
            return 0.0
        moment = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
        seconds = (moment - (now or datetime.now(UTC))).total_seconds()
    return max(0.0, seconds) if math.isfinite(seconds) else 0.0


def _hand_over(take: Take, places: Sequence[int], answer: Answer) -> None:
    for position, place in enumerate(places):  # one request was made, whoever shares its answer
        take(place, answer if position == 0 else replace(answer, attempts=0, seconds=0.0))


def _read(response: httpx2.Response) -> Answer | None:
    """The answer in a body; None when it is not the JSON of one."""
    try:
        content = json.loads(response.content)
        choice = content["choices"][0]
        text = choice["message"]["content"]
        if text is not None and not isinstance(text, str):
            return None
        reason = choice.get("finish_reason")
    except (ValueError, LookupError, TypeError, AttributeError):
        return None
    return Answer(text or "", finish_reason=reason if isinstance(reason, str) else None, tokens=_tokens(content))


def _tokens(content: dict[str, Any]) -> tuple[int, int] | None:
    usage = content.get("usage")
    if not isinstance(usage, dict):
        return None
    counts = usage.get("prompt_tokens"), usage.get("completion_tokens")
    return counts if isinstance(counts[0], int) and isinstance(counts[1], int) else None  # type: ignore[return-value]


def _reason(response: httpx2.Response) -> str:
    """What the server says about an error, short and on one line."""
    try:
        error = json.loads(response.content)["error"]
        text = error["message"] if isinstance(error, dict) else error
    except (ValueError, LookupError, TypeError):
        text = response.text
    line = " ".join(str(text).split())
    return f": {line[:200]}" if line else ""
