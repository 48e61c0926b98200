"""Reads English captions: a and an, number, order of adjectives, pronouns, known sentence forms."""

from __future__ import annotations

import re

from caption_checking import Report, Thing, first_match, sign, signs

NOUNS: dict[str, tuple[str, str]] = {}


def _add(number: str, **words: str) -> None:
    for kind, names in words.items():
        for name in names.split(", "):
            NOUNS[name] = (kind, number)


_add(
    "s",
    tshirt="T-shirt, tee shirt, tee, crewneck, jersey",
    shirt="shirt, button-up shirt, collared shirt, dress shirt, buttoned shirt, oxford shirt, blouse",
    sweater="sweater, pullover, jumper, knit jersey, woolly",
    hoodie="hoodie, hooded sweatshirt, hooded jumper, hooded pullover", tank="tank top, singlet, muscle shirt",
    dress="dress, frock, gown", jacket="jacket, windbreaker, zip-up jacket", coat="coat, overcoat, topcoat, greatcoat",
    blazer="blazer, suit jacket, sport coat, tailored jacket",
    puffer="puffer jacket, down jacket, padded jacket, quilted coat, puffy jacket", skirt="skirt", bag="bag, carryall",
    backpack="backpack, rucksack, knapsack, daypack",
    shoulderbag="shoulder bag, crossbody bag, messenger bag, satchel, sling bag",
    handbag="handbag, purse, pocketbook, clutch", suitcase="suitcase, rolling suitcase, trolley case, travel case",
    shoppingbag="shopping bag, plastic bag, carrier bag, grocery bag", cap="cap, baseball cap, ball cap, peaked cap",
    beanie="beanie, knit hat, woolen hat, bobble hat", hat="hat, sun hat, brimmed hat, wide hat",
    scarf="scarf, muffler, neckerchief", umbrella="umbrella, brolly, parasol",
)  # fmt: skip
_add(
    "p",
    trousers="pants, trousers, slacks, chinos", jeans="jeans, denim pants, denims, denim slacks",
    shorts="shorts, bermudas, walking shorts", leggings="leggings, tight pants, tights, stretch pants",
    shoes="shoes, footwear", sneakers="sneakers, tennis shoes, running shoes, trainers, kicks, gym shoes",
    boots="boots, booties, ankle boots", sandals="sandals, open sandals, strappy sandals",
    leather="leather shoes, dress shoes, loafers, oxfords, brogues",
    heels="high heels, heels, high-heeled shoes, pumps, stilettos", glasses="glasses, spectacles, eyeglasses",
    sunglasses="sunglasses, shades, tinted lenses",
)  # fmt: skip
UNPAIRED = {"footwear", "tinted lenses", "shades"}
LEADING = {
    ("short-sleeved", "shirt"): "tshirt", ("long-sleeved", "shirt"): "sweater", ("sleeveless", "shirt"): "tank",
    ("long", "pants"): "trousers", ("long", "coat"): "coat",
}  # fmt: skip
COLORS = {
    "black": "black, jet-black, ebony", "white": "white, snowy white, ivory", "gray": "gray, grey, ash-gray, slate",
    "red": "red, crimson, scarlet", "blue": "blue, cobalt, royal blue",
    "navy": "dark blue, navy blue, navy, deep blue, midnight blue",
    "lightblue": "light blue, sky blue, pale blue, baby blue", "green": "green, emerald, grass-green",
    "yellow": "yellow, lemon, sunny yellow", "orange": "orange, tangerine", "purple": "purple, violet, plum, lilac",
    "pink": "pink, rosy, fuchsia", "brown": "brown, chocolate, chestnut", "beige": "beige, tan, khaki, sandy, cream",
    "dark": "dark, dark colored, dusky",
}  # fmt: skip
COLOR_KEYS = {name: key for key, names in COLORS.items() for name in names.split(", ")}
PATTERNS = {
    "striped": "striped", "banded": "striped", "plaid": "plaid", "checkered": "plaid", "tartan": "plaid",
    "gingham": "plaid", "polka dot": "dots", "dotted": "dots", "spotted": "dots",
}  # fmt: skip


def _any(words: object) -> str:
    return "|".join(sorted(map(re.escape, words), key=len, reverse=True))  # type: ignore[call-overload]


_C = _any(COLOR_KEYS)
THING = re.compile(
    rf"(?<![\w-])(?:(?P<article>[Aa]n?) )?(?P<pair>pair of )?(?:(?P<lead>{_any({lead for lead, _ in LEADING})}) )?"
    rf"(?:(?P<color>{_C}) (?:and (?P<second>{_C}) )?)?(?:(?P<pattern>{_any(PATTERNS)}) )?"
    rf"(?P<noun>{_any(NOUNS)})(?![\w-])"
    rf"(?: (?:with|featuring|bearing) (?P<other>{_C}) (?P<marks>stripes|polka dots|dots|bands|spots)"
    rf"| (?:with|bearing|featuring)(?P<one> an?)?(?: (?P<ink>{_C}))?"
    r" (?P<print>print on the front|logo on the front|graphics on the chest)"
    rf"| (?P<picture>(?:bearing a picture|featuring artwork) in (?P<inked>{_C})"
    r"|bearing an emblem|featuring some artwork))?"
)
MARKS = {"stripes": "striped", "bands": "striped", "polka dots": "dots", "dots": "dots", "spots": "dots"}


def article_for(word: str) -> str:
    return "an" if word[0] in "aeiou" else "a"


def _judge_articles(found: re.Match[str], errors: list[str]) -> None:
    """a, an or a pair of, as the noun's number and the first sound ask for."""
    noun, article = found["noun"], (found["article"] or "").lower()
    number = NOUNS[noun][1]
    if number == "s" and not article:
        errors.append(f"no article before {noun}")
    if number == "p" and bool(article) != bool(found["pair"]):
        errors.append(f"article before the plural {noun}")
    if found["pair"] and (number == "s" or noun in UNPAIRED):
        errors.append(f"a pair of {noun}")
    if article and article != article_for(found[0].split(" ", 1)[1]):
        errors.append("article: " + found[0])
    if found["print"]:
        start = "" if found["print"].startswith("graphics") else article_for(found["ink"] or found["print"])
        if (found["one"] or "").strip() != start:
            errors.append("article of the print: " + found[0])


def _thing(found: re.Match[str], errors: list[str]) -> Thing:
    noun = found["noun"]
    thing = Thing(NOUNS[noun][0], COLOR_KEYS.get(found["color"] or "", "-"))
    if found["lead"]:
        thing.kind = LEADING.get((found["lead"], noun), "?")
        if thing.kind == "?":
            errors.append(f"{found['lead']} {noun}")
    if found["second"]:
        thing.second = COLOR_KEYS[found["second"]]
        if not found["pattern"]:
            errors.append("two colours without a pattern: " + found[0])
    if found["pattern"]:
        thing.pattern = PATTERNS[found["pattern"]]
    if found["marks"]:
        thing.pattern, thing.second = MARKS[found["marks"]], COLOR_KEYS[found["other"]]
    if found["picture"] or found["print"]:
        thing.pattern, thing.second = "print", COLOR_KEYS.get(found["inked"] or found["ink"] or "", "-")
    return thing


def signed(text: str, errors: list[str]) -> tuple[str, list[Thing]]:
    """The text with noun phrases replaced by signs."""
    things: list[Thing] = []

    def read(found: re.Match[str]) -> str:
        _judge_articles(found, errors)
        things.append(_thing(found, errors))
        return sign(len(things) - 1)

    return THING.sub(read, text), things


ITEM = r"N\d+(?: (?:over|on top of) N\d+)?"
LIST = rf"{ITEM}(?:, N\d+)*(?:,? and N\d+)?"
PEOPLE = {
    "woman": "f", "lady": "f", "female": "f", "girl": "f", "young woman": "f", "young lady": "f", "older woman": "f",
    "older lady": "f", "elderly woman": "f", "man": "m", "guy": "m", "male": "m", "young man": "m", "young guy": "m",
    "young male": "m", "older man": "m", "older gentleman": "m", "elderly man": "m", "person": "", "pedestrian": "",
}  # fmt: skip
SUBJECT = rf"(?P<determiner>A|An|The|This) (?P<subject>{_any(PEOPLE)})"
HAIR_COLORS = {
    "black": "black", "dark": "black", "brown": "brown", "dark brown": "brown", "blond": "blond", "blonde": "blond",
    "gray": "gray", "grey": "gray", "red": "red", "auburn": "red",
}  # fmt: skip
_H = _any(HAIR_COLORS)
HAIR = (
    rf"(?:short|long),? (?:{_H}) hair|(?:short|long|shoulder-length|medium-length) (?:(?:{_H}) )?hair|a ponytail"
    rf"|(?:(?:{_H}) )?hair (?:in a ponytail|tied back in a ponytail|in a bun|up in a bun)|a bald head|a shaved head"
)
WALKING = ("is walking", "is walking along", "is walking by")
STANDING = ("is standing", "is standing still")
_ACTION = _any((*WALKING, *STANDING))
VIEWS = {
    "is seen from behind": "back", "is facing away from the camera": "back", "is seen from the front": "front",
    "is facing the camera": "front", "is seen from the side": "side",
}  # fmt: skip
_OWN = "(?:his|her|their)"
PHRASE = (
    rf"has (?:{HAIR})|has a beard|{_ACTION}|{_any(VIEWS)}|is looking at {_OWN} phone"
    r"|is holding a phone|is using a cell phone"
    rf"|is wearing N\d+|has N\d+ on(?: {_OWN} head)?|has N\d+ around {_OWN} neck|is carrying N\d+(?: on {_OWN} back)?"
    rf"|carries N\d+|has N\d+(?: on {_OWN} back| over {_OWN} shoulder)?|is holding N\d+(?: in {_OWN} hand)?"
    r"|is pulling N\d+(?: behind (?:him|her|them))?"
)
PRONOUN = "(?P<pronoun>She|He|The (?:\\w+ )?\\w+)"
SENTENCES = [
    re.compile(form)
    for form in (
        rf"{SUBJECT} (?:is wearing|wears|is dressed in) (?P<list>{LIST})",
        rf"{SUBJECT} in (?P<list>{LIST}) (?P<phrase1>{_ACTION})",
        rf"{SUBJECT} (?P<phrase1>{_ACTION}), wearing (?P<list>{LIST})",
        rf"{SUBJECT} with (?P<hair>{HAIR}) is wearing (?P<list>{LIST})",
        rf"{SUBJECT} has (?P<hair>{HAIR}) and is wearing (?P<list>{LIST})",
        rf"{PRONOUN} also has on (?P<list>{LIST})",
        rf"{SUBJECT} wears (?P<list>{ITEM} with {LIST})",
        rf"{SUBJECT} (?:wearing|dressed in) (?P<list>{LIST}) (?P<phrase1>{PHRASE})",
        rf"{PRONOUN} (?P<phrase1>{PHRASE})",
        rf"{PRONOUN} (?P<phrase1>{PHRASE}) and (?P<phrase2>{PHRASE})",
    )
]
VERB_KINDS = [
    (re.compile(r"N(\d+) on \w+ head"), {"cap", "beanie", "hat"}),
    (re.compile(r"N(\d+) around"), {"scarf"}),
    (re.compile(r"N(\d+) over"), {"shoulderbag"}),
    (re.compile(r"N(\d+) on \w+ back"), {"backpack"}),
    (re.compile(r"is pulling N(\d+)"), {"suitcase"}),
]
OWN = {"f": "her", "m": "his", "": "their"}
OBJECT = {"f": "her", "m": "him", "": "them"}


def hair_fact(text: str) -> str:
    if "bald" in text or "shaved" in text:
        return "hair:bald:-"
    style = "ponytail" if "ponytail" in text else "bun" if "bun" in text else ""
    style = style or ("short" if "short" in text else "medium" if "-length" in text else "long")
    color = re.search(rf"(?<![\w-])({_H}) hair", text)
    return f"hair:{style}:{HAIR_COLORS[color[1]] if color else '-'}"


def _read_phrase(text: str, gender: str, things: list[Thing], report: Report) -> None:
    for own in re.findall(r"\b(?:his|her|their)\b", text.partition(" behind ")[0]):
        if own != OWN[gender]:
            report.errors.append("possessive " + own)
    behind = text.partition(" behind ")[2]
    if behind and behind != OBJECT[gender]:
        report.errors.append("behind " + behind)
    for pattern, kinds in VERB_KINDS:
        found = pattern.search(text)
        if found and things[int(found[1])].kind not in kinds:
            report.errors.append("a thing worn in a strange way: " + text)
    if text in WALKING:
        report.facts.add("walking")
    elif text in STANDING:
        report.facts.add("standing")
    elif text in VIEWS:
        report.facts.add(VIEWS[text])
    elif "phone" in text:
        report.facts.add("phone")
    elif "beard" in text:
        report.facts.add("beard")
    elif not signs(text):
        report.facts.add(hair_fact(text))


def _read_subject(determiner: str, person: str, report: Report) -> None:
    if PEOPLE[person]:
        report.facts.add("gender:" + PEOPLE[person])
    if person == "girl" or "young" in person:
        report.facts.add("young")
    if "older" in person or "elderly" in person:
        report.facts.add("old")
    if determiner in ("A", "An") and determiner.lower() != article_for(person):
        report.errors.append("article before " + person)


def _read_sentence(sentence: str, person: str, things: list[Thing], report: Report) -> str:
    """Read one sentence; returns what the person is called."""
    found = first_match(sentence, [form for form in SENTENCES if ("subject" in form.groupindex) == (person == "")])
    if found is None:
        report.errors.append("not understood: " + sentence)
        return person or "person"
    groups = found.groupdict()
    if groups.get("subject"):
        person = groups["subject"]
        _read_subject(groups["determiner"], person, report)
    gender = PEOPLE[person]
    pronoun = groups.get("pronoun")
    if pronoun and pronoun not in ({"f": "She", "m": "He", "": "The person"}[gender], "The " + person):
        report.errors.append("wrong pronoun " + pronoun)
    for name in ("phrase1", "phrase2"):
        if groups.get(name):
            _read_phrase(groups[name], gender, things, report)
    if groups.get("hair"):
        report.facts.add(hair_fact(groups["hair"]))
    return person


def check(caption: str) -> Report:
    """Errors and facts of a training caption."""
    report = Report()
    text, things = signed(caption, report.errors)
    if not text.endswith("."):
        report.errors.append("no full stop")
    for under in re.findall(r"(?:over|on top of) N(\d+)", text):
        things[int(under)].group = "inner "
    person = ""
    for sentence in text.removesuffix(".").split(". "):
        person = _read_sentence(sentence, person, things, report)
    report.facts.update(thing.group + thing.fact() for thing in things)
    return report


def agreement_errors(caption: str) -> list[str]:
    """Errors inside the noun phrases of any caption, paraphrases too."""
    errors: list[str] = []
    signed(caption, errors)
    return errors
