"""Reads German captions: agreement in the noun phrase, case by verb and preposition, known sentence forms."""

from __future__ import annotations

import re
from dataclasses import dataclass, field

from caption_checking import Report, Thing, first_match, sign, signs

NOUNS: dict[str, tuple[str, str]] = {}


def _add(gender: str, **words: str) -> None:
    for kind, names in words.items():
        for name in names.split():
            NOUNS[name] = (kind, gender)


_add(
    "m",
    sweater="Pullover Pulli Strickpullover Sweater", hoodie="Kapuzenpullover Hoodie Kapuzensweater Kapuzenpulli",
    jacket="Blouson", coat="Mantel Wollmantel Überzieher", blazer="Blazer", skirt="Rock Damenrock Stoffrock",
    bag="Beutel", backpack="Rucksack Tornister Ranzen", suitcase="Koffer Rollkoffer Trolley Reisekoffer",
    shoppingbag="Einkaufsbeutel", hat="Hut Sonnenhut Krempenhut Schlapphut", scarf="Schal Wollschal",
    umbrella="Regenschirm Schirm Knirps Stockschirm",
)  # fmt: skip
_add(
    "f",
    shirt="Bluse Hemdbluse Damenbluse", jacket="Jacke Übergangsjacke", blazer="Anzugjacke",
    puffer="Daunenjacke Steppjacke Winterjacke Pufferjacke", trousers="Hose Stoffhose Chinohose",
    jeans="Jeans Jeanshose Denimhose Nietenhose", shorts="Kurzhose", leggings="Stretchhose Gymnastikhose",
    bag="Tasche Tragetasche", shoulderbag="Umhängetasche Schultertasche Kuriertasche Messengertasche",
    handbag="Handtasche Damentasche Henkeltasche", shoppingbag="Einkaufstüte Plastiktüte Tragetüte",
    cap="Kappe Baseballkappe Schirmmütze Schildkappe", beanie="Mütze Strickmütze Wollmütze Pudelmütze",
    glasses="Brille Sehbrille Hornbrille", sunglasses="Sonnenbrille Sonnenschutzbrille",
)  # fmt: skip
_add(
    "n",
    tshirt="T-Shirt Oberteil Kurzarmshirt Rundhalsshirt", shirt="Hemd Oberhemd Knopfhemd",
    tank="Tanktop Trägershirt Achselshirt", dress="Kleid Damenkleid Stoffkleid", blazer="Sakko Jackett",
    scarf="Halstuch",
)  # fmt: skip
_add(
    "p",
    shorts="Shorts Bermudas", leggings="Leggings", shoes="Schuhe Treter",
    sneakers="Turnschuhe Sportschuhe Sneaker Laufschuhe", boots="Stiefel Stiefeletten Boots",
    sandals="Sandalen Sandaletten Riemchenschuhe", leather="Lederschuhe Halbschuhe Anzugschuhe Schnürschuhe",
    heels="Absatzschuhe Pumps Stöckelschuhe Highheels",
)  # fmt: skip
for _name, (_kind, _gender) in list(NOUNS.items()):
    if _gender == "p" and not _name.endswith(("n", "s")):
        NOUNS[_name + "n"] = (_kind, "pd")  # the dative plural
        NOUNS[_name] = (_kind, "px")  # any other case

COLORS = {
    "black": "schwarz tiefschwarz pechschwarz", "white": "weiß schneeweiß reinweiß", "gray": "grau mausgrau steingrau",
    "red": "rot feuerrot karminrot", "blue": "blau kobaltblau königsblau",
    "navy": "dunkelblau marineblau nachtblau tiefblau", "lightblue": "hellblau himmelblau babyblau",
    "green": "grün smaragdgrün grasgrün", "yellow": "gelb zitronengelb sonnengelb",
    "orange": "orangefarben mandarinenfarben", "purple": "violett fliederfarben pflaumenfarben",
    "pink": "rosafarben pinkfarben lachsfarben", "brown": "braun schokobraun kastanienbraun",
    "beige": "beigefarben sandfarben cremefarben", "dark": "dunkl dunkelfarbig",
}  # fmt: skip
STEMS = {stem: key for key, stems in COLORS.items() for stem in stems.split()}
FIXED = {"lila": "purple", "rosa": "pink", "beige": "beige"}
IN_COMPOUND = {**STEMS, **FIXED, "orange": "orange"}
OTHER = {"lang", "kurz", "eng", "kurzärmelig", "ärmellos"}
PATTERNS = {
    "gestreift": "striped", "kariert": "plaid", "gepunktet": "dots",
    "geringelt": "striped", "gewürfelt": "plaid", "getupft": "dots",
}  # fmt: skip
SPECIAL = {
    ("kurzärmelig", "Oberteil"): "tshirt", ("ärmellos", "Oberteil"): "tank", ("lang", "Mantel"): "coat",
    ("lang", "Hose"): "trousers", ("kurz", "Hose"): "shorts", ("eng", "Hose"): "leggings",
}  # fmt: skip
AFTER = {
    "Aufdruck": ("print", "m"), "Motiv": ("print", "n"), "Logo": ("print", "n"), "Bild": ("print", "n"),
    "Emblem": ("print", "n"), "Streifen": ("striped", "p"), "Querstreifen": ("striped", "p"),
    "Ringeln": ("striped", "p"), "Karos": ("plaid", "p"), "Würfelmustern": ("plaid", "p"), "Punkten": ("dots", "p"),
    "Tupfen": ("dots", "p"), "Kreisen": ("dots", "p"),
}  # fmt: skip
AFTER_TAIL = {"Motiv": ("auf", "der", "Brust"), "Bild": ("vorn",)}
ENDINGS = ("en", "em", "er", "es", "e")
# article -> gender -> cases; then the adjective ending that each (gender, case) asks for
ARTICLES = {
    "ein": {"m": {"nom"}, "n": {"nom", "acc"}},
    "eine": {"f": {"nom", "acc"}},
    "einen": {"m": {"acc"}},
    "einem": {"m": {"dat"}, "n": {"dat"}},
    "einer": {"f": {"dat"}},
}
ADJECTIVE = {
    ("m", "nom"): "er", ("f", "nom"): "e", ("n", "nom"): "es", ("p", "nom"): "e",
    ("m", "acc"): "en", ("f", "acc"): "e", ("n", "acc"): "es", ("p", "acc"): "e",
    ("m", "dat"): "en", ("f", "dat"): "en", ("n", "dat"): "en", ("p", "dat"): "en",
}  # fmt: skip
CASES = ("nom", "acc", "dat")


def _adjective(token: str) -> tuple[str, str, str] | None:
    """(topic, key, ending or "*") of an inflected adjective."""
    if token in FIXED:
        return "color", FIXED[token], "*"
    for ending in ENDINGS:
        stem = token[: -len(ending)]
        if token.endswith(ending):
            if stem in STEMS:
                return "color", STEMS[stem], ending
            if stem in PATTERNS:
                return "pattern", PATTERNS[stem], ending
            if stem in OTHER:
                return "other", stem, ending
    return None


def _read_after(tokens: list[str], at: int, thing: Thing, errors: list[str]) -> int:
    """A pattern named after the noun: mit weißen Punkten; mit einem roten Motiv auf der Brust."""
    if at >= len(tokens) or tokens[at] not in ("mit", "samt"):
        return at
    end = at + 1
    article = end < len(tokens) and tokens[end] in ARTICLES
    given = tokens[end] if article else ""
    end += article
    color = _adjective(tokens[end]) if end < len(tokens) else None
    end += color is not None
    if end >= len(tokens) or tokens[end] not in AFTER or (color is not None and color[0] != "color"):
        return at
    pattern, gender = AFTER[tokens[end]]
    if given and given != ("einem" if gender in "mn" else ""):
        errors.append(f"article {given} {tokens[end]}")
    if color is not None and color[2] != "*" and color[2] != ("en" if given or gender == "p" else "em"):
        errors.append(f"ending -{color[2]} before {tokens[end]}")
    tail = AFTER_TAIL.get(tokens[end], ())
    end += 1
    if tuple(tokens[end : end + len(tail)]) == tail:
        end += len(tail)
    elif tokens[end - 1] == "Motiv":
        errors.append("Motiv without its place")
    if thing.pattern:
        errors.append("two patterns")
    thing.pattern = pattern
    thing.second = color[1] if color else "-"
    return end


@dataclass
class _Words:
    """The words of a noun phrase before they are judged."""

    article: str = ""
    adjectives: list[tuple[str, str, str]] = field(default_factory=list)
    stripes: list[str] = field(default_factory=list)
    plain_color: str = ""
    noun: str = ""


def _scan(tokens: list[str], at: int) -> tuple[_Words, int] | None:
    """Article, adjectives and noun from a token on; None when they do not end in a noun."""
    words = _Words()
    if tokens[at] in ARTICLES:
        words.article = tokens[at]
        at += 1
    while at < len(tokens):
        token = tokens[at]
        read = _adjective(token)
        if read is not None:
            words.adjectives.append(read)
        elif "-" in token and all(part in IN_COMPOUND for part in token.split("-")):
            words.stripes = [IN_COMPOUND[part] for part in token.split("-")]
        elif token in STEMS and at + 1 < len(tokens) and (_adjective(tokens[at + 1]) or ("",))[0] == "pattern":
            words.plain_color = STEMS[token]
        else:
            break
        at += 1
    if at >= len(tokens) or tokens[at] not in NOUNS:
        return None
    words.noun = tokens[at]
    return words, at + 1


def _cases(words: _Words, errors: list[str]) -> set[str]:
    """The cases in which article, endings and noun agree."""
    gender = NOUNS[words.noun][1]
    cases = {"pd": {"dat"}, "px": {"nom", "acc"}}.get(gender, set(CASES))
    gender = gender[0]
    if gender == "p":
        if words.article:
            errors.append(f"{words.article} before the plural {words.noun}")
    elif not words.article:
        errors.append(f"no article before {words.noun}")
    else:
        cases &= ARTICLES[words.article].get(gender, set())
    for _, _, ending in words.adjectives:
        if ending != "*":
            cases = {case for case in cases if ADJECTIVE[gender, case] == ending}
    if not cases:
        errors.append(f"no case fits: {words.article} {words.adjectives} {words.noun}")
    return cases


def read_thing(tokens: list[str], at: int, errors: list[str]) -> tuple[Thing, int] | None:
    """Read a noun phrase that starts at a token; None when there is none."""
    scanned = _scan(tokens, at)
    if scanned is None:
        return None
    words, end = scanned
    noun = words.noun
    thing = Thing(NOUNS[noun][0], forms=frozenset(_cases(words, errors)))
    for topic, key, _ in words.adjectives:
        if topic == "color":
            if thing.color != "-" or words.plain_color:
                errors.append("two colours before " + noun)
            thing.color = key
        elif topic == "pattern":
            thing.pattern = key
        elif (key, noun) in SPECIAL:
            thing.kind = SPECIAL[key, noun]
        else:
            errors.append(f"{key} does not go with {noun}")
    if noun == "Oberteil" and not any(topic == "other" for topic, _, _ in words.adjectives):
        errors.append("Oberteil without its sleeves")
    if words.stripes and (thing.pattern != "striped" or len(words.stripes) != 2 or thing.color != "-"):
        errors.append("a compound colour without stripes")
    elif words.stripes:
        thing.color, thing.second = words.stripes
    if words.plain_color:
        thing.color = words.plain_color
    return thing, _read_after(tokens, end, thing, errors)


def signed(text: str, errors: list[str]) -> tuple[str, list[Thing]]:
    """The text with noun phrases replaced by signs."""
    tokens = re.findall(r"[\w-]+|[^\w\s]", text)
    out: list[str] = []
    things: list[Thing] = []
    at = 0
    while at < len(tokens):
        read = read_thing(tokens, at, errors)
        if read is None:
            out.append(tokens[at])
            at += 1
        else:
            out.append(sign(len(things)))
            things.append(read[0])
            at = read[1]
    return re.sub(r" ([,.:])", r"\1", " ".join(out)), things


ITEM = r"N\d+(?: über N\d+)?"
LIST = rf"{ITEM}(?:, N\d+)*(?: und N\d+)?"
SUBJECT = (
    r"(?P<subject>(?:Eine|Diese|Die) (?:(?:junge|ältere) )?(?:Frau|Dame)|(?:Eine|Diese|Die) Person"
    r"|Ein (?:(?:junger|älterer) )?(?:Mann|Herr)|(?:Dieser|Der) (?:(?:junge|ältere) )?(?:Mann|Herr))"
)
HAIR_COLORS = {
    "schwarz": "black", "dunkl": "black", "braun": "brown", "dunkelbraun": "brown", "blond": "blond", "grau": "gray",
    "rot": "red", "rotbraun": "red",
}  # fmt: skip
_STEM = "(?:" + "|".join(HAIR_COLORS) + ")"
LENGTHS = {"kurz": "short", "lang": "long", "schulterlang": "medium", "mittellang": "medium"}
_LENGTH = "(?:" + "|".join(LENGTHS) + ")"
HAIR = (
    rf"{_LENGTH}e(?:,? {_STEM}e)? Haare|einen Pferdeschwanz|einen Dutt|eine Glatze|einen kahlen Kopf"
    rf"|die (?:{_STEM}en )?Haare zu einem (?:Pferdeschwanz|Dutt) gebunden"
)
HAIR_DATIVE = (
    rf"{_LENGTH}en(?:,? {_STEM}en)? Haaren|einem Pferdeschwanz|einem Dutt|einer Glatze|einem kahlen Kopf"
    rf"|{_STEM}en Haaren und (?:Pferdeschwanz|Dutt)"
)
WALKING = ("geht vorbei", "läuft vorbei", "ist zu Fuß unterwegs")
STANDING = ("steht da", "steht still")
VIEWS = {
    "ist von hinten zu sehen": "back", "wendet der Kamera den Rücken zu": "back", "ist von vorn zu sehen": "front",
    "blickt in die Kamera": "front", "ist von der Seite zu sehen": "side",
}  # fmt: skip
_ACTION = "|".join((*WALKING, *STANDING))
PHRASE = (
    rf"hat (?:{HAIR})|(?:trägt|hat) einen Bart|{_ACTION}|{'|'.join(VIEWS)}|schaut auf das Handy"
    r"|hält ein Handy in der Hand"
    r"|trägt N\d+(?: auf dem Rücken| um den Hals| über der Schulter| in der Hand)?|zieht N\d+(?: hinter sich her)?"
    r"|hat N\d+ (?:auf dem Kopf|auf dem Rücken|dabei)|hält N\d+(?: in der Hand)?"
)
PRONOUN = "(?P<pronoun>Sie|Er|sie|er)"
SENTENCES = [
    re.compile(form)
    for form in (
        rf"{SUBJECT} trägt (?P<acc1>{LIST})",
        rf"{SUBJECT} trägt (?P<acc1>{ITEM}) zu (?P<dat1>{LIST})",
        rf"{SUBJECT} mit (?P<dat1>{LIST}) (?P<phrase1>{_ACTION})",
        rf"{SUBJECT} (?P<phrase1>{_ACTION}) und trägt (?P<acc1>{LIST})",
        rf"{SUBJECT} mit (?P<hair>{HAIR_DATIVE}) trägt (?P<acc1>{LIST})",
        rf"{SUBJECT} hat (?P<hair>{HAIR}) und trägt (?P<acc1>{LIST})",
        rf"Dazu trägt {PRONOUN} (?P<acc1>{LIST})",
        rf"{SUBJECT} in (?P<dat1>{LIST}) (?P<phrase1>{PHRASE})",
        rf"{SUBJECT} ist mit (?P<dat1>{LIST}) bekleidet",
        rf"{PRONOUN} (?P<phrase1>{PHRASE})",
        rf"{PRONOUN} (?P<phrase1>{PHRASE}) und (?P<phrase2>{PHRASE})",
        rf"Außerdem (?P<verb>\w+) {PRONOUN} (?P<rest>[\w ,]+)",
    )
]
WHOLE_PHRASE = re.compile(PHRASE)
VERB_KINDS = [
    (re.compile(r"N(\d+) auf dem Kopf"), {"cap", "beanie", "hat"}),
    (re.compile(r"N(\d+) um den Hals"), {"scarf"}),
    (re.compile(r"N(\d+) über der Schulter"), {"shoulderbag"}),
    (re.compile(r"N(\d+) auf dem Rücken"), {"backpack"}),
    (re.compile(r"zieht N(\d+)"), {"suitcase"}),
]


def hair_fact(text: str) -> str:
    if "Glatze" in text or "kahl" in text:
        return "hair:bald:-"
    style = "ponytail" if "Pferdeschwanz" in text else "bun" if "Dutt" in text else ""
    color = "-"
    for word in re.findall(r"\w+", text):
        stem = re.sub(r"en?$", "", word)
        color = HAIR_COLORS.get(stem, color)
        style = style or LENGTHS.get(stem, "")
    return f"hair:{style}:{color}"


def _read_phrase(text: str, things: list[Thing], report: Report) -> None:
    for position in signs(text):
        _demand(things[position], "acc", report)
    for pattern, kinds in VERB_KINDS:
        found = pattern.search(text)
        if found and things[int(found.group(1))].kind not in kinds:
            report.errors.append("a thing carried in a strange way: " + text)
    if text in WALKING:
        report.facts.add("walking")
    elif text in STANDING:
        report.facts.add("standing")
    elif text in VIEWS:
        report.facts.add(VIEWS[text])
    elif "Handy" in text:
        report.facts.add("phone")
    elif "Bart" in text:
        report.facts.add("beard")
    elif not signs(text):
        report.facts.add(hair_fact(text.removeprefix("hat ")))


def _demand(thing: Thing, case: str, report: Report) -> None:
    if case not in thing.forms:
        report.errors.append(f"{thing.kind} is not in the {case}")


def _read_list(text: str, case: str, things: list[Thing], report: Report) -> None:
    for under in re.findall(r"über N(\d+)", text):
        thing = things[int(under)]
        thing.group = "inner "
        _demand(thing, "dat", report)
    for position in signs(re.sub(r" über N\d+", "", text)):
        _demand(things[position], case, report)


def _read_subject(subject: str, report: Report) -> str:
    gender = "m" if re.search(r"Mann|Herr", subject) else "f"
    if "Person" not in subject:
        report.facts.add("gender:" + gender)
    if "jung" in subject:
        report.facts.add("young")
    if "älter" in subject:
        report.facts.add("old")
    return gender


def _read_sentence(sentence: str, gender: str, things: list[Thing], report: Report) -> str:
    """Read one sentence; returns the gender of the person."""
    found = first_match(sentence, [form for form in SENTENCES if ("subject" in form.groupindex) == (gender == "")])
    if found is None:
        report.errors.append("not understood: " + sentence)
        return gender or "?"
    groups = {name: text for name, text in found.groupdict().items() if text}
    if "subject" in groups:
        gender = _read_subject(groups["subject"], report)
    pronoun = groups.get("pronoun", "")
    if pronoun and (
        pronoun.lower() != ("er" if gender == "m" else "sie") or pronoun[0].isupper() != sentence.startswith(pronoun)
    ):
        report.errors.append("wrong pronoun " + pronoun)
    if "verb" in groups:
        groups["phrase1"] = f"{groups['verb']} {groups['rest']}"
        if WHOLE_PHRASE.fullmatch(groups["phrase1"]) is None:
            report.errors.append("not understood: " + sentence)
            return gender
    for name in ("phrase1", "phrase2"):
        if name in groups:
            _read_phrase(groups[name], things, report)
    if "hair" in groups:
        report.facts.add(hair_fact(groups["hair"]))
    _read_list(groups.get("acc1", ""), "acc", things, report)
    _read_list(groups.get("dat1", ""), "dat", things, report)
    return gender


def check(caption: str) -> Report:
    """Errors and facts of a training caption."""
    report = Report()
    text, things = signed(caption, report.errors)
    if not text.endswith("."):
        report.errors.append("no full stop")
    gender = ""
    for sentence in text.removesuffix(".").split(". "):
        gender = _read_sentence(sentence, gender, things, report)
    report.facts.update(thing.group + thing.fact() for thing in things)
    return report


GOVERNED = {"mit": "dat", "aus": "dat", "an": "dat", "in": "dat", "durch": "acc", "oben": "nom", "unten": "nom"}
"""What governs a list of things in a paraphrase -> its case; after any other word, a verb, the accusative."""
FREE_LIST = re.compile(r"(\w+ )?\b(?!N\d)(\w+):? (N\d+(?: über N\d+)?(?:(?:, | und )N\d+)*)")


def agreement_errors(caption: str) -> list[str]:
    """Errors inside the noun phrases of any caption, paraphrases too, and of their case."""
    report = Report()
    text, things = signed(caption, report.errors)
    for before, word, listed in FREE_LIST.findall(text):
        case = "acc" if (before.strip(), word) == ("Gehüllt", "in") else GOVERNED.get(word, "acc")
        if word != "über":
            _read_list(listed, case, things, report)
    return report.errors
