"""The endpoint as a backend, against a server in this process that misbehaves as scripted."""

from __future__ import annotations

import socket
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from chat_server import CONTENT, TRANSPORT, ChatServer, good

from tipr.errors import ConfigError, EndpointError
from tipr.translation.answers import AnswerCache
from tipr.translation.backends import Answer, Prompt
from tipr.translation.endpoint import FAILURES_IN_A_ROW, Endpoint, EndpointSettings, retry_after
from tipr.translation.prompts import load_prompt
from tipr.translation.records import Item

KEY = "sk-secret-1"


def _prompt(caption: str, language: str = "zh") -> Prompt:
    return Prompt(load_prompt("translate").fill(Item("k", "a.jpg", 0, "en", language, caption)))


def _endpoint(server: ChatServer, cache: AnswerCache | None = None, **more: Any) -> Endpoint:
    settings = {"key": KEY, "timeout": 10.0, "first_wait": 0.01, **more}
    return Endpoint(EndpointSettings(server.url, "m", **settings), cache)


def _stream(endpoint: Endpoint, prompts: Sequence[Prompt]) -> list[Answer]:
    taken: dict[int, Answer] = {}
    endpoint.stream(prompts, taken.__setitem__)
    return [taken[place] for place in range(len(prompts))]


def test_an_answer_comes_with_its_facts() -> None:
    with ChatServer() as server:
        endpoint = _endpoint(server)
        assert endpoint.complete([_prompt("A coat."), _prompt("A hat.", "de")]) == [
            good("A coat.", "zh"),
            good("A hat.", "de"),
        ]
        assert endpoint.requests == server.total == 2
        answer = _stream(endpoint, [_prompt("A coat.")])[0]
        assert (answer.attempts, answer.finish_reason, answer.tokens) == (1, "stop", (30, len(good("A coat.", "zh"))))
        assert server.headers["authorization"] == f"Bearer {KEY}"
        assert server.bodies[0]["model"] == "m"
        assert server.bodies[0]["temperature"] == 0
        assert KEY not in repr(endpoint.settings)
        assert KEY not in str(endpoint.describe())


@pytest.mark.parametrize("fault", TRANSPORT)
def test_a_fault_on_the_way_is_asked_again(fault: str) -> None:
    def plan(caption: str, language: str) -> Sequence[str]:
        return (fault, fault) if caption == "bad" else ()

    with ChatServer(plan) as server:
        endpoint = _endpoint(server, timeout=0.5 if fault == "hang" else 10.0)
        answers = _stream(endpoint, [_prompt("one"), _prompt("bad"), _prompt("two")])
    assert [answer.text for answer in answers] == [good(caption, "zh") for caption in ("one", "bad", "two")]
    assert [answer.attempts for answer in answers] == [1, 3, 1]
    assert server.requests["bad", "zh"] == 3


@pytest.mark.parametrize(("fault", "text"), [("wrong_language", "bad"), ("empty", "")])
def test_what_the_model_says_is_data(fault: str, text: str) -> None:
    assert fault in CONTENT
    with ChatServer(lambda caption, language: (fault,)) as server:
        answer = _stream(_endpoint(server), [_prompt("bad")])[0]
    assert (answer.text, answer.error, answer.attempts, server.total) == (text, None, 1, 1)


def test_a_server_that_asks_for_time_gets_it_from_all_workers() -> None:
    with ChatServer(lambda caption, language: ("429",) if caption == "0" else (), delay=0.02) as server:
        server.retry_after = "0.6"
        _stream(_endpoint(server, concurrency=2), [_prompt(str(number)) for number in range(50)])
    since = [moment - server.moments[0] for moment in server.moments]
    # half of the time is left for the answer to arrive: the rest of the prompts take longer than that
    assert not [seconds for seconds in since if 0.3 < seconds < 0.6]
    assert sum(seconds >= 0.6 for seconds in since) >= 20


def test_a_quota_of_the_day_is_not_waited_for() -> None:
    with ChatServer(lambda caption, language: ("429",)) as server:
        server.retry_after = "3600"
        with pytest.raises(EndpointError, match="asks for 3,600 seconds of quiet: go on after that"):
            _stream(_endpoint(server), [_prompt("one")])
    assert server.total == 1


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        (None, 0.0),
        ("2", 2.0),
        ("0.25", 0.25),
        ("-3", 0.0),
        ("soon", 0.0),
        ("Sat, 21 Nov 2026 12:00:30 GMT", 30.0),
        ("Sat, 21 Nov 2026 11:00:00 GMT", 0.0),
        ("Sat, 21 Nov 2026 12:00:30 -0000", 30.0),
        ("nan", 0.0),
        ("inf", 0.0),
    ],
)
def test_retry_after(value: str | None, seconds: float) -> None:
    assert retry_after(value, now=datetime(2026, 11, 21, 12, tzinfo=UTC)) == seconds


def test_a_silent_endpoint_ends_the_work_with_one_line() -> None:
    with ChatServer(lambda caption, language: ("500",) * 9) as server, pytest.raises(EndpointError) as caught:
        _stream(_endpoint(server, attempts=2, concurrency=1), [_prompt(str(number)) for number in range(40)])
    assert server.total == 2 * FAILURES_IN_A_ROW
    assert "did not answer 10 captions in a row, last: status 500: <html>Internal" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_nobody_there_is_a_fault_on_the_way() -> None:
    with socket.create_server(("127.0.0.1", 0)) as held:
        port = held.getsockname()[1]
    settings = EndpointSettings(f"http://127.0.0.1:{port}/v1", "m", attempts=2, first_wait=0.01)
    answer = _stream(Endpoint(settings), [_prompt("one")])[0]
    assert answer.text is None
    assert not answer.refused
    assert str(answer.error).startswith("ConnectError")
    assert str(answer.error).endswith("after 2 attempts")


@pytest.mark.parametrize(
    ("status", "words"),
    [(401, "refuses the key: set TIPR_TRANSLATE_KEY: not this one"), (404, "knows no such address or model")],
)
def test_what_no_request_would_pass_stops_at_once(status: int, words: str) -> None:
    plan = (f"status{status}",)
    with ChatServer(lambda caption, language: plan) as server, pytest.raises(EndpointError, match=words):
        _stream(_endpoint(server, concurrency=2), [_prompt(str(number)) for number in range(20)])
    assert server.total <= 2


def test_single_refusals_are_told_from_silence() -> None:
    def plan(caption: str, language: str) -> Sequence[str]:
        return ("status400",) if caption.startswith("bad") else ()

    prompts = [_prompt(caption) for caption in ("bad", "one")]
    with ChatServer(plan) as server:
        answers = _stream(_endpoint(server), prompts)
        assert server.total == 2
        assert (answers[0].text, answers[0].refused, answers[0].attempts) == (None, True, 1)
        assert answers[0].error == "refused with status 400: not this one"
        assert answers[1].text == good("one", "zh")
        many = [_prompt(f"bad {number}") for number in range(30)]
        with pytest.raises(EndpointError, match="in a row, last: refused with status 400"):
            _stream(_endpoint(server), many)
        assert all(answer.refused for answer in _stream(_endpoint(server, leave_unanswered=True), many))
        with pytest.raises(EndpointError, match="refused with status 400"):
            _endpoint(server).complete(prompts)


def test_requests_under_way_are_bounded() -> None:
    with ChatServer(delay=0.02) as server:
        _stream(_endpoint(server, concurrency=3), [_prompt(str(number)) for number in range(15)])
    assert server.at_once == 3


def test_known_answers_and_equal_captions_cost_nothing(tmp_path: Path) -> None:
    prompts = [_prompt(caption) for caption in ("one", "two", "one")]
    path = tmp_path / "answers.jsonl"
    with ChatServer() as server:
        first = _endpoint(server, AnswerCache(path))
        assert first.unknown(prompts) == prompts[:2]
        answers = _stream(first, prompts)
        assert [answer.attempts for answer in answers] == [1, 1, 0]
        assert server.total == 2
        again = _endpoint(server, AnswerCache(path))
        assert again.unknown([*prompts, _prompt("three")]) == [_prompt("three")]
        assert [answer.text for answer in _stream(again, prompts)] == [answer.text for answer in answers]
        assert server.total == 2
        _stream(again, [_prompt("three")])
        _stream(first, [_prompt("four")])  # neither holds the file when it has nothing to write
        assert server.total == 4
        warmer = _endpoint(server, AnswerCache(path), temperature=0.5)
        assert warmer.unknown(prompts) == prompts[:2]
    assert KEY not in path.read_text(encoding="utf-8")


def test_captions_do_not_follow_a_redirect(monkeypatch: pytest.MonkeyPatch) -> None:
    with ChatServer(lambda caption, language: ("status307",)) as server, ChatServer() as other:
        server.location = other.url
        with pytest.raises(EndpointError, match=r"sends the caption on to .*name that address in TIPR_TRANSLATE_URL"):
            _stream(_endpoint(server), [_prompt("one")])
    assert (server.total, other.total) == (1, 0)


def test_pictures_are_never_sent() -> None:
    with ChatServer() as server, pytest.raises(ConfigError, match="pictures are never sent"):
        _stream(_endpoint(server), [_prompt("one"), Prompt("two", Path("a.jpg"))])
    assert server.total == 0


@pytest.mark.parametrize(
    "url",
    ["ftp://host/v1", "host/v1", "http://user:key@host/v1", "http://host/v1?key=1", "http://", "http://host:x/v1", ""],
)
def test_an_address_must_be_plain(url: str) -> None:
    with pytest.raises(ConfigError, match="TIPR_TRANSLATE_URL") as caught:
        EndpointSettings(url, "m")
    assert "key@" not in str(caught.value)


def test_the_address_may_be_given_whole() -> None:
    for url in ("https://host/v1", "https://host/v1/", "https://host/v1/chat/completions"):
        settings = EndpointSettings(url, "m")
        assert settings.address == "https://host/v1/chat/completions"
        assert settings.host == "host"
