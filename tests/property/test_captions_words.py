"""How often captions use a word beside real captions, how long they are, and words that they never use."""

from __future__ import annotations

import re
from types import ModuleType

import pytest
from caption_samples import LANGUAGES, benchmark_script, captions

from tipr.data.synthetic.captions import STYLES


@pytest.fixture(scope="module")
def script() -> ModuleType:
    return benchmark_script("caption_word_shares")


def test_word_shares_are_near_the_real_ones(script: ModuleType) -> None:
    """Within 5 points for words above 10 %, within 3 below; one photograph of each of many identities.

    Many identities matter: captions of one person are alike, so a few hundred people would vary by several points.
    """
    texts = script.english_captions(2500, 5, photographs=1)
    found = script.word_shares(texts)
    assert found.captions >= 4000
    apart = {
        name: round(found.shares[name] - real, 1)
        for name, real in script.REAL_SHARES.items()
        if abs(found.shares[name] - real) > script.allowed(real)
    }
    assert apart == {}
    assert abs(found.mean_words - script.REAL_MEAN_WORDS) <= 3
    assert found.max_words <= script.REAL_MAX_WORDS


def test_a_shirt_is_counted_in_a_t_shirt(script: ModuleType) -> None:
    found = script.word_shares(["A man in a T-shirt.", "Grey shorts, gray shorts.", "A knit hat."])
    assert found.shares["shirt"] == pytest.approx(100 / 3)
    assert found.shares["gray/grey"] == pytest.approx(100 / 3)
    assert found.shares["hat/cap"] == pytest.approx(100 / 3)
    assert found.shares["dress"] == 0


BANNED = {
    "en": r"asian|african|caucasian|european|hispanic|latin[oax]|arab|indian|chinese|oriental|ethnic\w*|race|racial"
    r"|skin|skinned|complexion|tanned|fat|thin|slim|skinny|chubby|overweight|obese|petite|muscular|curvy|plump|stocky"
    r"|beautiful|pretty|handsome|ugly|attractive|sexy|cute|gorgeous|(?:black|white|brown|yellow) (?:man|woman|male"
    r"|female|guy|girl|lady|person|gentleman|pedestrian|individual|fellow|chap|bloke|gal|lass|lad)",
    "zh": r"黑人|白人|黄种|亚裔|非裔|亚洲|非洲|欧洲|种族|民族|皮肤|肤|胖|瘦|苗条|丰满|肥|体重|身材|漂亮|美丽|美女|帅"
    r"|丑|好看|性感|可爱",
    "fr": r"asiatiques?|africaine?s?|européen(?:ne)?s?|arabes?|maghrébine?|métisse?|ethni\w*|peau|teint|bronzée?"
    r"|grosse?|minces?|maigres?|sveltes?|obèses?|rondelette?|costaude?|musclée?|beau|belle|jolie?|laide?|moche"
    r"|séduisante?|sexy|(?:homme|femme|personne|passante?|individu) (?:noire?|blanche?|blanc)(?! et)",
    "de": r"asiat\w*|afrikan\w*|europä\w*|arab\w*|ethni\w*|haut|hautfarbe|hellhäutig\w*|dunkelhäutig\w*|gebräunt\w*"
    r"|dicke?\w?|dünne?\w?|schlank\w*|mager\w*|mollig\w*|korpulent\w*|übergewicht\w*|muskulös\w*|hübsch\w*"
    r"|schöne?\w?|hässlich\w*|attraktiv\w*|(?:schwarz|weiß)e[rn]? (?:mann|frau|person|herr|dame)",
}


@pytest.mark.parametrize("language", LANGUAGES)
@pytest.mark.parametrize("plans", ["training", "paraphrase"])
def test_no_word_about_origin_skin_weight_or_beauty(language: str, plans: str) -> None:
    pattern = BANNED[language] if language == "zh" else rf"\b(?:{BANNED[language]})\b"
    banned = re.compile(pattern, re.IGNORECASE)
    style = STYLES[language, plans][1]
    lexicon = repr((style.colors, style.nouns, style.words, style.phrases, [plan.text for plan in style.plans]))
    assert banned.findall(lexicon) == []
    for caption in captions(language, plans, 800):
        assert banned.search(caption) is None, caption


def test_the_banned_list_would_notice() -> None:
    """The patterns find what they are for."""
    for language, text in (
        ("en", "A black man"),
        ("en", "a slim woman"),
        ("zh", "一名漂亮的女子"),
        ("fr", "une femme noire"),
        ("fr", "une jolie dame"),
        ("de", "Eine schlanke Frau"),
        ("de", "ein schwarzer Mann"),
    ):
        pattern = BANNED[language] if language == "zh" else rf"\b(?:{BANNED[language]})\b"
        assert re.search(pattern, text, re.IGNORECASE), text
