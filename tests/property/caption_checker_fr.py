"""Reads French captions: article and colour agree with the noun and stand right, elision, known sentence forms."""

from __future__ import annotations

import re

from caption_checking import Report, Thing, first_match, sign, signs

NOUNS: dict[str, tuple[str, str]] = {}


def _add(gender: str, **words: str) -> None:
    for kind, names in words.items():
        for name in names.split(", "):
            NOUNS[name] = (kind, gender)


_add(
    "m",
    tshirt="t-shirt, tee-shirt, maillot", haut="haut, top", shirt="chemisier",
    sweater="pull, pull-over, chandail, tricot",
    hoodie="sweat à capuche, sweat-shirt, hoodie", tank="débardeur, marcel", jacket="blouson, coupe-vent",
    coat="manteau, long manteau, pardessus, caban", blazer="blazer, veston", puffer="anorak",
    trousers="pantalon, chino", jeans="jean, denim, pantalon en denim", shorts="short, bermuda",
    leggings="legging, pantalon moulant, caleçon long, collant", bag="sac, cabas, fourre-tout",
    backpack="sac à dos, cartable, sac de randonnée", shoulderbag="sac en bandoulière",
    handbag="sac à main, sac de dame",
    suitcase="bagage à roues", shoppingbag="sac de courses, sac en plastique, sachet", cap="couvre-chef à visière",
    beanie="bonnet", hat="chapeau, chapeau à bords, galurin", scarf="foulard, cache-nez", umbrella="parapluie, pépin",
)  # fmt: skip
_add(
    "f",
    shirt="chemise, chemisette, liquette", dress="robe, tunique longue", jacket="veste, jaquette",
    blazer="veste de costume, veste de tailleur", puffer="doudoune, veste matelassée, parka", shorts="culotte courte",
    skirt="jupe, jupe en tissu", shoulderbag="sacoche, besace, musette", handbag="pochette",
    suitcase="valise, valise à roulettes, malle", shoppingbag="poche d'emplettes", cap="casquette, gapette",
    beanie="tuque, calotte tricotée", scarf="écharpe", umbrella="ombrelle",
)  # fmt: skip
_add("mp", shoes="souliers", sneakers="tennis", boots="bottillons", sandals="nu-pieds", leather="mocassins, derbys")
_add("mp", heels="escarpins, talons hauts, souliers à talons")
_add(
    "fp",
    shoes="chaussures", sneakers="baskets, chaussures de sport, sneakers", boots="bottes, bottines",
    sandals="sandales, spartiates", leather="chaussures en cuir, chaussures de ville", heels="chaussures à talons",
    glasses="lunettes, lunettes de vue, bésicles", sunglasses="lunettes de soleil",
)  # fmt: skip
NOUNS["binocles"] = ("glasses", "mp")
NOUNS["verres teintés"] = ("sunglasses", "mp")
COMPLEMENTS = {
    "à manches courtes": {"haut": "tshirt"}, "sans manches": {"haut": "tank"},
    "à col rond": {"maillot": "tshirt", "top": "tshirt"}, "à bretelles": {"top": "tank"},
    "à cagoule": {"sweat-shirt": "hoodie"}, "en duvet": {"parka": "puffer"}, "à roues": {"malle": "suitcase"},
    "en toile": {"pantalon": "trousers", "bermuda": "shorts"},
}  # fmt: skip
ALL = frozenset({"m", "f", "mp", "fp"})
COLORS: dict[str, tuple[str, frozenset[str]]] = {}


def _inflected(key: str, masculine: str, feminine: str, plural: str, feminine_plural: str) -> None:
    for form, gender in ((masculine, "m"), (feminine, "f"), (plural, "mp"), (feminine_plural, "fp")):
        known = COLORS.get(form, (key, frozenset()))[1]
        COLORS[form] = (key, known | {gender})


for _key, _four in {
    "black": "noir noire noirs noires", "white": "blanc blanche blancs blanches", "gray": "gris grise gris grises",
    "red": "rouge rouge rouges rouges", "blue": "bleu bleue bleus bleues", "green": "vert verte verts vertes",
    "yellow": "jaune jaune jaunes jaunes", "purple": "violet violette violets violettes",
    "pink": "rose rose roses roses", "brown": "brun brune bruns brunes", "beige": "beige beige beiges beiges",
}.items():  # fmt: skip
    _inflected(_key, *_four.split())
for _key, _four in {
    "dark": "foncé foncée foncés foncées", "purple": "mauve mauve mauves mauves",
    "red": "écarlate écarlate écarlates écarlates",
}.items():  # fmt: skip
    _inflected(_key, *_four.split())
_inflected("dark", "sombre", "sombre", "sombres", "sombres")
_inflected("dark", "obscur", "obscure", "obscurs", "obscures")
for _key, _names in {
    "navy": "bleu marine, bleu foncé, bleu nuit, bleu profond",
    "lightblue": "bleu clair, bleu ciel, bleu pâle, bleu layette",
    "orange": "orange, abricot, mandarine", "brown": "marron, chocolat, noisette", "black": "ébène, noir de jais",
    "white": "ivoire, blanc cassé", "gray": "gris souris, gris perle", "red": "cerise", "blue": "bleu roi, indigo",
    "green": "vert émeraude, vert sapin", "yellow": "jaune citron, jaune vif", "purple": "prune",
    "pink": "fuchsia, saumon", "beige": "sable, crème",
}.items():  # fmt: skip
    for _name in _names.split(", "):
        COLORS[_name] = (_key, ALL)


def _any(words: object) -> str:
    return "|".join(sorted(map(re.escape, words), key=len, reverse=True))  # type: ignore[call-overload]


_C = _any(COLORS)
_EDGE = r"(?![\w-]|'\w)"
THING = re.compile(
    rf"(?<![\w-])(?:(?P<det>un|une|des|Un|Une|Des) |(?<=de )|(?<=d'))(?P<noun>{_any(NOUNS)}){_EDGE}"
    rf"(?: (?P<color>{_C}){_EDGE})?(?: (?P<complement>{_any(COMPLEMENTS)}){_EDGE})?"
    rf"(?: à (?P<stripes>rayures|bandes)(?: (?P<stripe1>{_C}){_EDGE})?(?: et (?P<stripe2>{_C}){_EDGE})?"
    rf"| à (?P<checks>carreaux|damiers)(?: (?P<check>{_C}){_EDGE})?"
    rf"| à (?P<dots>pois|petits ronds)(?: (?P<dot>{_C}){_EDGE})?"
    rf"| (?:avec|arborant) un (?P<print>motif|imprimé|logo|dessin|emblème)(?: (?P<ink>{_C}){_EDGE})?"
    r"(?: sur la poitrine| devant)?)?"
)


def _agree(form: str | None, gender: str, errors: list[str]) -> str:
    if form is None:
        return "-"
    key, genders = COLORS[form]
    if gender not in genders:
        errors.append(f"{form} does not agree ({gender})")
    return key


def _read_pattern(found: re.Match[str], thing: Thing, errors: list[str]) -> None:
    """Stripes agree as rayures (f pl), checks and dots as carreaux and pois (m pl), a print as motif (m)."""
    if found["stripes"]:
        thing.pattern = "striped"
        first, second = (_agree(found[name], "fp", errors) for name in ("stripe1", "stripe2"))
        if second == "-":
            thing.second = first
        elif thing.color != "-":
            errors.append("three colours")
        else:
            thing.color, thing.second = first, second
    elif found["checks"]:
        thing.pattern = "plaid"
        color = _agree(found["check"], "mp", errors)
        if thing.color == "-":
            thing.color = color
        else:
            thing.second = color
    elif found["dots"]:
        thing.pattern, thing.second = "dots", _agree(found["dot"], "mp", errors)
    elif found["print"]:
        thing.pattern, thing.second = "print", _agree(found["ink"], "m", errors)


def signed(text: str, errors: list[str]) -> tuple[str, list[Thing]]:
    """The text with noun phrases replaced by signs; `Thing.forms` holds the article and the first sound."""
    things: list[Thing] = []

    def read(found: re.Match[str]) -> str:
        noun, article = found["noun"], (found["det"] or "").lower()
        kind, gender = NOUNS[noun]
        if article and article != {"m": "un", "f": "une"}.get(gender, "des"):
            errors.append(f"article {article} {noun}")
        if not article and gender in ("m", "f"):
            errors.append(f"no article before {noun}")
        thing = Thing(kind, _agree(found["color"], gender, errors))
        if found["complement"]:
            thing.kind = COMPLEMENTS[found["complement"]].get(noun, "?")
        if thing.kind in ("?", "haut"):
            errors.append(f"complement of {noun}")
        _read_pattern(found, thing, errors)
        sound = "vowel" if (article or noun)[0] in "aeiouéèêâh" else "consonant"
        thing.forms = frozenset({article or "bare", sound})
        things.append(thing)
        return sign(len(things) - 1)

    return THING.sub(read, text), things


ITEM = r"N\d+(?: (?:sur|par-dessus) N\d+)?"
LIST = rf"{ITEM}(?:, N\d+)*(?: et N\d+)?"
_OF = r"(?:d'|de )"
OF_LIST = rf"{_OF}{ITEM}(?:, {_OF}N\d+)*(?: et {_OF}N\d+)?"
SUBJECT = (
    r"(?P<subject>Un homme(?: âgé)?|Cet homme(?: âgé)?|L'homme(?: âgé)?|(?:Un|Ce|Le) (?:monsieur(?: âgé)?|jeune homme)"
    r"|(?:Une|Cette|La) (?:(?:femme|dame)(?: âgée)?|jeune femme|jeune fille|personne))"
)
HAIR_COLORS = {
    "noirs": "black", "bruns": "brown", "châtains": "brown", "blonds": "blond", "gris": "gray", "roux": "red",
}  # fmt: skip
_H = _any(HAIR_COLORS)
HAIR = (
    rf"les cheveux (?:(?:{_H}) et )?(?:courts|mi-longs|longs)|des cheveux (?:courts|mi-longs)(?: (?:{_H}))?"
    rf"|de longs cheveux(?: (?:{_H}))?|les cheveux (?:(?:{_H}) )?attachés en queue de cheval"
    rf"|une queue de cheval|un chignon|les cheveux (?:(?:{_H}) )?(?:coiffés|relevés) en chignon"
    r"|le crâne rasé|la tête rasée"
)
HAIR_WITH = (
    rf"aux cheveux (?:courts|mi-longs|longs)(?: et (?:{_H}))?|aux cheveux (?:{_H}) (?:courts|mi-longs)"
    rf"|aux longs cheveux(?: (?:{_H}))?|aux cheveux (?:{_H}) attachés en queue de cheval|avec une queue de cheval"
    rf"|avec un chignon|aux cheveux (?:{_H}) coiffés en chignon|au crâne rasé|à la tête rasée"
)
WALKING = ("marche", "est en train de marcher")
STANDING = ("se tient debout", "est debout")
_ACTION = "|".join((*WALKING, *STANDING))
VIEWS = {
    "de dos": "back", "tourne le dos à la caméra": "back", "de face": "front", "fait face à la caméra": "front",
    "de profil": "side",
}  # fmt: skip
PHRASE = (
    rf"a (?:{HAIR})|porte la barbe|a une barbe|{_ACTION}|est vue? de (?:dos|face|profil)|tourne le dos à la caméra"
    r"|fait face à la caméra|regarde son téléphone|tient un téléphone portable|s'abrite sous N\d+|(?:tire|traîne) N\d+"
    r"|porte N\d+(?: sur la tête| autour du cou| à l'épaule)?|a N\d+(?: sur les épaules)?|tient N\d+(?: à la main)?"
)
PRONOUN = "(?P<pronoun>Elle|Il)"
SENTENCES = [
    re.compile(form)
    for form in (
        rf"{SUBJECT} porte (?P<list1>{LIST})",
        rf"{SUBJECT} porte (?P<list1>{ITEM}) avec (?P<list2>{LIST})",
        rf"{SUBJECT} portant (?P<list1>{LIST}) (?P<phrase1>{_ACTION})",
        rf"{SUBJECT} (?P<phrase1>{_ACTION}) et porte (?P<list1>{LIST})",
        rf"{SUBJECT} (?P<agree>vêtue?) (?P<of>{OF_LIST}) (?P<phrase1>{_ACTION})",
        rf"{SUBJECT} est (?P<agree>vêtue?) (?P<of>{OF_LIST})",
        rf"{SUBJECT} (?P<hair>{HAIR_WITH}) porte (?P<list1>{LIST})",
        rf"{SUBJECT} a (?P<hair>{HAIR}) et porte (?P<list1>{LIST})",
        rf"{PRONOUN} porte aussi (?P<list1>{LIST})",
        rf"{SUBJECT} (?P<agree>habillée?) (?P<of>{OF_LIST}) (?P<phrase1>{PHRASE})",
        rf"{PRONOUN} (?P<phrase1>{PHRASE})",
        rf"{PRONOUN} (?P<phrase1>{PHRASE}) et (?P<phrase2>{PHRASE})",
    )
]
LENGTHS = {"courts": "short", "mi-longs": "medium", "longs": "long"}


def hair_fact(text: str) -> str:
    if "rasé" in text:
        return "hair:bald:-"
    words = re.findall(r"[\w-]+", text)
    style = "ponytail" if "queue" in words else "bun" if "chignon" in words else ""
    style = style or next((LENGTHS[word] for word in words if word in LENGTHS), "")
    return f"hair:{style}:{next((HAIR_COLORS[word] for word in words if word in HAIR_COLORS), '-')}"


def _read_phrase(text: str, feminine: bool, things: list[Thing], report: Report) -> None:
    for position in signs(text):
        _with_article(things[position], report)
    if text.startswith("est vu"):
        if text.startswith("est vue") != feminine:
            report.errors.append("vu does not agree")
        report.facts.add(VIEWS["de " + text.rsplit(" ", 1)[1]])
    elif text in VIEWS:
        report.facts.add(VIEWS[text])
    elif text in WALKING:
        report.facts.add("walking")
    elif text in STANDING:
        report.facts.add("standing")
    elif "téléphone" in text:
        report.facts.add("phone")
    elif "barbe" in text:
        report.facts.add("beard")
    elif not signs(text):
        report.facts.add(hair_fact(text))


def _with_article(thing: Thing, report: Report) -> None:
    if "bare" in thing.forms:
        report.errors.append("no article before " + thing.kind)


def _read_of(text: str, things: list[Thing], report: Report) -> None:
    for word, number, under in re.findall(r"(d'|de )N(\d+)(?: (?:sur|par-dessus) N(\d+))?", text):
        thing = things[int(number)]
        if "des" in thing.forms:
            report.errors.append("de before des")
        if (word == "d'") != ("vowel" in thing.forms):
            report.errors.append("elision before " + thing.kind)
        if under:
            _with_article(things[int(under)], report)


def _read_subject(subject: str, report: Report) -> str:
    gender = "m" if re.search(r"homme|monsieur", subject) else "f"
    if "personne" not in subject:
        report.facts.add("gender:" + gender)
    if "jeune" in subject:
        report.facts.add("young")
    if "âgé" in subject:
        report.facts.add("old")
    return gender


def _read_sentence(sentence: str, gender: str, things: list[Thing], report: Report) -> str:
    """Read one sentence; returns the gender of the word for the person."""
    found = first_match(sentence, [form for form in SENTENCES if ("subject" in form.groupindex) == (gender == "")])
    if found is None:
        report.errors.append("not understood: " + sentence)
        return gender or "?"
    groups = {name: text for name, text in found.groupdict().items() if text}
    if "subject" in groups:
        gender = _read_subject(groups["subject"], report)
    feminine = gender == "f"
    if "pronoun" in groups and (groups["pronoun"] == "Elle") != feminine:
        report.errors.append("wrong pronoun")
    if "agree" in groups and groups["agree"].endswith("e") != feminine:
        report.errors.append("participle does not agree")
    for name in ("phrase1", "phrase2"):
        if name in groups:
            _read_phrase(groups[name], feminine, things, report)
    if "hair" in groups:
        report.facts.add(hair_fact(groups["hair"]))
    for number in signs(groups.get("list1", "") + " " + groups.get("list2", "")):
        _with_article(things[number], report)
    _read_of(groups.get("of", ""), things, report)
    return gender


def check(caption: str) -> Report:
    """Errors and facts of a training caption."""
    report = Report()
    text, things = signed(caption, report.errors)
    if not text.endswith("."):
        report.errors.append("no full stop")
    for under in re.findall(r"(?:sur|par-dessus) N(\d+)", text):
        things[int(under)].group = "inner "
    gender = ""
    for sentence in text.removesuffix(".").split(". "):
        gender = _read_sentence(sentence, gender, things, report)
    report.facts.update(thing.group + thing.fact() for thing in things)
    return report


def agreement_errors(caption: str) -> list[str]:
    """Errors inside the noun phrases of any caption, paraphrases too, and of elision."""
    report = Report()
    text, things = signed(caption, report.errors)
    _read_of(text, things, report)
    for bare in re.findall(r"(?<!d')(?<!de )\bN(\d+)", text):
        _with_article(things[int(bare)], report)
    report.errors.extend(re.findall(r"\b(?:[Qq]ue|[Dd]e|[Ll][ea]|[Jj]e) [aeiouyéèêâh]\w*", text))
    return report.errors
