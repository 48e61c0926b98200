"""Names, captions and queries that try to command a terminal come out as harmless text."""

from __future__ import annotations

import json
import unicodedata

import pytest

from tipr.cli.output import json_text, safe

PAYLOADS = [
    "\x1b[31mred\x1b[0m",
    "\x1b[2J\x1b[H wiped",
    "\x1b]0;owned title\x07name",
    "\x1b]0;owned title\x1b\\name",
    "\x1b]52;c;cm0gLXJmIH4=\x07clipboard",
    "\x1b]8;;http://evil.example\x1b\\link\x1b]8;;\x1b\\",
    "\x1bPq#0;2;0;0;0#0~~\x1b\\sixel",
    "\x1b_application\x1b\\text",
    "\x1b^privacy\x1b\\text",
    "\x1bc reset",
    "\x1b(0 charset",
    "\x1b#8 alignment",
    "\x1b",
    "\x1b[",
    "\x1b]",
    "\x1b]unterminated forever",
    "\x1b[?1049h other screen",
    "\x1b[6n report",
    "\x1b[38;2;255;0;0mtrue colour",
    "\x9b31m eight-bit control",
    "\x9d0;title\x9c eight-bit string",
    "\x90payload\x9c device control",
    "safe\rFAKE PROMPT $ ",
    "a\x08\x08b erase",
    "line\nbreak",
    "line\x0bvertical",
    "page\x0cfeed",
    "nul\x00byte",
    "bell\x07\x07",
    "delete\x7f",
    "tab\tstop",
    "next\x85line",
    "line\u2028separator",
    "paragraph\u2029separator",
    "photo\u202egnp.exe",
    "\u2066isolate\u2069",
    "\u200fright to left mark\u061c",
    "zero\u200bwidth\u2060joiner\ufeff",
    "soft\u00adhyphen",
    "tag\U000e0041\U000e0042 letters",
    "broken \udcff utf-8 \ud800",
    "nested \x1b\x1b[31m[31m twice",
    "\x1b[31\x1b[0mm split",
    "%s %n {0} $(reboot) `reboot` ; rm -rf /",
    "[bold red]markup[/] [link=http://evil.example]x[/link]",
]


def _harmless(text: str, allowed: str = "") -> bool:
    commands = {sign for sign in text if unicodedata.category(sign) in ("Cc", "Cf", "Cs", "Zl", "Zp")}
    return commands <= set(allowed)


def test_there_are_enough_payloads() -> None:
    assert len(set(PAYLOADS)) == len(PAYLOADS) >= 40


@pytest.mark.parametrize("payload", PAYLOADS)
def test_a_hostile_text_is_made_one_harmless_line(payload: str) -> None:
    shown = safe(f"before {payload} after")
    assert _harmless(shown), ascii(shown)
    assert shown.startswith("before")
    assert safe(shown) == shown
    shown.encode("utf-8")


@pytest.mark.parametrize("payload", PAYLOADS)
def test_json_keeps_the_text_and_commands_nothing(payload: str) -> None:
    for indent in (None, 2):
        text = json_text({"path": payload, payload: [payload]}, indent=indent)
        assert _harmless(text, allowed="\n"), ascii(text)
        assert json.loads(text) == {"path": payload, payload: [payload]}
        text.encode("utf-8")


@pytest.mark.parametrize(
    "text",
    [
        "一个穿红色外套的男人",
        "Frau mit grünem Rucksack",
        "à côté",
        "می‌خواهم",
        "👩‍🦰 red hair",
        "a – b … “c”",
        "C:\\x y.jpg",
    ],
)
def test_honest_text_stays_as_it_is(text: str) -> None:
    assert safe(text) == text
    assert text in json_text([text]) or "\\\\" in json_text([text])


def test_words_stay_apart_where_control_characters_stood() -> None:
    assert safe("a\tb\nc") == "a b c"
    assert safe("\x1b[31mred\x1b[0m coat") == "red coat"
    assert safe("photo\u202egnp.exe") == "photognp.exe"
