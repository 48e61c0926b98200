"""Answers that were paid for already: an append-only file of them, looked up by the hash of the request."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tipr.translation.backends import Answer
from tipr.translation.records import Journal, read_rows

ANSWERS = "answers.jsonl"
"""File of the answers in the output folder."""


class AnswerCache:
    """Every answer as it came, kept before it becomes a row: a request that was answered is never made again.

    Args:
        path: the `.jsonl` file; made with the first answer.

    Raises:
        DatasetError: the file is damaged.
    """

    def __init__(self, path: Path | str) -> None:
        self.path = Path(path)
        self._journal: Journal | None = None
        rows = read_rows(self.path) if self.path.is_file() else ()
        self._answers = {row["key"]: _answer_of(row) for row in rows}

    def __contains__(self, request: str) -> bool:
        return request in self._answers

    def get(self, request: str) -> Answer | None:
        """The answer to a request, with no attempts and no seconds; None when it was never given."""
        return self._answers.get(request)

    def put(self, request: str, answer: Answer) -> None:
        """Keep an answer that has a text; it is out of this process when this returns.

        Raises:
            ConfigError: another process writes to the file.
        """
        if self._journal is None:
            self._journal = Journal(self.path, {"holds": "answers by request"})
        if request not in self._answers:
            row = {"text": answer.text, "finish_reason": answer.finish_reason, "tokens": answer.tokens}
            self._journal.append({"key": request, **row})
            self._answers[request] = _answer_of(row)

    def close(self) -> None:
        """Let others write to the file; the next answer opens it again."""
        if self._journal is not None:
            self._journal.close()
            self._journal = None


def request_sha256(body: Mapping[str, Any]) -> str:
    """Hash of everything that is asked: model, messages, decoding; not of who is asked."""
    return hashlib.sha256(json.dumps(body, sort_keys=True, ensure_ascii=False).encode()).hexdigest()


def _answer_of(row: Mapping[str, Any]) -> Answer:
    tokens = row.get("tokens")
    return Answer(
        row["text"],
        attempts=0,
        finish_reason=row.get("finish_reason"),
        tokens=None if tokens is None else tuple(tokens),
    )
