"""The renderer: a deterministic function whose pictures show what captions name."""

from __future__ import annotations

import subprocess
import sys
import time
from dataclasses import replace
from hashlib import sha256

import numpy as np
import pytest

from tipr.data.synthetic.attributes import COLORS, Person, Shot, sample_person, sample_shot
from tipr.data.synthetic.palette import DYES, SKIN, nearest
from tipr.data.synthetic.photograph import render
from tipr.data.synthetic.scene import World
from tipr.data.synthetic.sheet import sheet

SIZE = (192, 64)
PERSON = Person(
    gender="f", age="adult", build="average", height=1.0, skin=2, hair="long", hair_color="brown", beard=False,
    hat="none", hat_color="red", eyewear="none", top="tshirt", top_color="blue", pattern="solid",
    pattern_color="white", outer="none", outer_color="green", bottom="trousers", bottom_color="gray",
    skirt_length="knee", shoes="sneakers", shoe_color="black", bag="none", bag_color="brown", scarf=False,
    scarf_color="red", seed=11,
)  # fmt: skip
SHOT = Shot(
    camera=3, view="front", yaw=0.3, phase=1.0, stride=0.5, hold="none", umbrella_color="red", outer_open=False,
    feet_cut=False, occlusion="none", seed=17,
)  # fmt: skip


def digest(pixels: np.ndarray) -> str:
    return sha256(pixels.tobytes()).hexdigest()


def draw(number: int, *, difficulty: float = 1.0) -> tuple[Person, Shot]:
    random = np.random.default_rng([99, number])
    person = sample_person(random)
    return person, sample_shot(random, person, number % 8, difficulty=difficulty)


@pytest.mark.parametrize("size", [(144, 48), (192, 64), (384, 128), (96, 40)])
def test_picture_has_the_size_asked_for(size: tuple[int, int]) -> None:
    pixels = render(World(), PERSON, SHOT, size)
    assert pixels.shape == (*size, 3)
    assert pixels.dtype == np.uint8


def test_bytes_do_not_depend_on_the_order_of_calls() -> None:
    jobs = [draw(number) for number in range(10)]
    world = World(3)
    forward = [digest(render(world, *job, SIZE)) for job in jobs]
    world = World(3)
    backward = [digest(render(world, *job, SIZE)) for job in reversed(jobs)]
    assert forward == backward[::-1]
    assert len(set(forward)) == len(forward)
    assert forward[5] == digest(render(World(3), *jobs[5], SIZE))


def test_bytes_do_not_depend_on_the_process() -> None:
    program = (
        "import numpy as np, hashlib\n"
        "from tipr.data.synthetic.attributes import sample_person, sample_shot\n"
        "from tipr.data.synthetic.photograph import render\n"
        "from tipr.data.synthetic.scene import World\n"
        "r = np.random.default_rng([99, 4]); p = sample_person(r); s = sample_shot(r, p, 4)\n"
        f"print(hashlib.sha256(render(World(3), p, s, {SIZE}).tobytes()).hexdigest())\n"
    )
    other = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert other.stdout.strip() == digest(render(World(3), *draw(4), SIZE))


def test_world_seed_shot_seed_and_difficulty_matter() -> None:
    base = render(World(0), PERSON, SHOT, SIZE)
    assert digest(render(World(1), PERSON, SHOT, SIZE)) != digest(base)
    assert digest(render(World(0), PERSON, replace(SHOT, seed=18), SIZE)) != digest(base)
    assert digest(render(World(0), PERSON, SHOT, SIZE, difficulty=0.5)) != digest(base)


def test_starting_a_world_is_quick() -> None:
    start = time.process_time()
    for seed in range(10):
        World(seed)
    assert time.process_time() - start < 1.0


CHANGES = {
    "gender": "m", "age": "old", "build": "heavy", "height": 0.9, "skin": 5, "hair": "short", "hair_color": "blond",
    "hat": "cap", "eyewear": "sunglasses", "top": "shirt", "top_color": "red", "pattern": "striped",
    "outer": "puffer", "bottom": "skirt", "bottom_color": "beige", "shoes": "boots", "shoe_color": "white",
    "bag": "backpack",
}  # fmt: skip


@pytest.mark.parametrize("name", CHANGES)
def test_every_attribute_changes_the_picture(name: str) -> None:
    check_change(PERSON, replace(PERSON, **{name: CHANGES[name]}), SHOT)


@pytest.mark.parametrize(
    ("given", "name", "value"),
    [
        ({"hat": "beanie"}, "hat_color", "yellow"),
        ({"hat": "cap"}, "hat", "hat"),
        ({"hat": "cap"}, "hat", "beanie"),
        ({"eyewear": "glasses"}, "eyewear", "sunglasses"),
        ({"eyewear": "none"}, "eyewear", "glasses"),
        ({"gender": "m", "hair": "short"}, "beard", True),
        ({"pattern": "striped"}, "pattern_color", "red"),
        ({"pattern": "striped"}, "pattern", "plaid"),
        ({"pattern": "dots"}, "pattern", "print"),
        ({"outer": "coat"}, "outer_color", "pink"),
        ({"outer": "coat"}, "outer", "blazer"),
        ({"outer": "jacket"}, "outer", "puffer"),
        ({"outer": "coat"}, "scarf", True),
        ({"outer": "coat", "scarf": True}, "scarf_color", "green"),
        ({"bottom": "skirt"}, "skirt_length", "short"),
        ({"bottom": "skirt"}, "skirt_length", "long"),
        ({"bottom": "trousers"}, "bottom", "shorts"),
        ({"bottom": "trousers"}, "bottom", "leggings"),
        ({"bottom": "trousers", "bottom_color": "blue"}, "bottom", "jeans"),
        ({"shoes": "sneakers"}, "shoes", "sandals"),
        ({"shoes": "leather"}, "shoes", "heels"),
        ({"bag": "shoulderbag"}, "bag_color", "red"),
        ({"bag": "handbag"}, "bag", "shoppingbag"),
        ({"bag": "handbag"}, "bag", "suitcase"),
        ({"hair": "short"}, "hair", "bald"),
        ({"hair": "medium"}, "hair", "long"),
        ({"hair": "ponytail"}, "hair", "bun"),
        ({"top": "tshirt"}, "top", "tank"),
        ({"top": "sweater"}, "top", "hoodie"),
    ],
)
def test_dependent_attributes_change_the_picture(given: dict[str, object], name: str, value: object) -> None:
    person = replace(PERSON, **given)
    check_change(person, replace(person, **{name: value}), replace(SHOT, yaw=0.8))


@pytest.mark.parametrize(
    "change",
    [
        {"hold": "phone"}, {"hold": "umbrella"}, {"feet_cut": True}, {"occlusion": "pole"}, {"occlusion": "low"},
        {"occlusion": "plant"}, {"yaw": 3.1}, {"phase": 3.0}, {"stride": 1.0}, {"camera": 5},
    ],
)  # fmt: skip
def test_every_part_of_a_shot_changes_the_picture(change: dict[str, object]) -> None:
    pixels = [render(World(), PERSON, shot, (384, 128), difficulty=0.0) for shot in (SHOT, replace(SHOT, **change))]
    assert visible_change(*pixels) > 60


def test_open_outer_garment_shows_the_inner_top() -> None:
    person = replace(PERSON, outer="jacket", outer_color="black", top_color="yellow")
    counts = []
    for opened in (False, True):
        pixels = render(World(), person, replace(SHOT, yaw=0.0, outer_open=opened), (384, 128), difficulty=0.0)
        chest = pixels[90:200].astype(int)
        counts.append(int(((chest[:, :, 0] > 150) & (chest[:, :, 1] > 110) & (chest[:, :, 2] < 110)).sum()))
    assert counts[1] > counts[0] + 300


def visible_change(one: np.ndarray, other: np.ndarray) -> int:
    """Pixels that differ by more than what noise or rounding would do."""
    return int((np.abs(one.astype(int) - other.astype(int)).max(axis=2) > 24).sum())


def check_change(one: Person, other: Person, shot: Shot) -> None:
    pixels = [render(World(), person, shot, (384, 128), difficulty=0.0) for person in (one, other)]
    assert visible_change(*pixels) >= 30, "fewer than 30 pixels of 128 x 384 differ"


def torso(pixels: np.ndarray) -> np.ndarray:
    """Mean colour of the middle of the chest."""
    height, width, _ = pixels.shape
    part = pixels[int(height * 0.28) : int(height * 0.40), int(width * 0.42) : int(width * 0.58)]
    return part.reshape(-1, 3).mean(axis=0)


@pytest.mark.parametrize("colour", COLORS)
def test_plain_tops_are_recognised_by_their_colour(colour: str) -> None:
    world = World()
    for seed in range(3):
        person = replace(PERSON, gender="m", hair="short", top_color=colour, seed=seed)
        shot = replace(SHOT, camera=seed, seed=seed)
        assert nearest(torso(render(world, person, shot, SIZE, difficulty=0.0))) == colour


def test_most_standard_photographs_keep_the_colour() -> None:
    world = World()
    right = total = 0
    for number, colour in enumerate(COLORS * 2):
        person = replace(PERSON, gender="m", hair="short", top_color=colour, seed=number)
        shot = replace(SHOT, camera=number % 8, yaw=float(3.1 if number % 3 == 0 else 0.2), seed=number)
        right += nearest(torso(render(world, person, shot, SIZE))) == colour
        total += 1
    assert right / total >= 0.75


def test_a_studio_picture_is_clean() -> None:
    """Difficulty 0: the same background without noise, and no jitter of the tone between shots of one camera."""
    clean = render(World(), PERSON, SHOT, (384, 128), difficulty=0.0).astype(int)
    noisy = render(World(), PERSON, replace(SHOT, camera=SHOT.camera), (384, 128), difficulty=1.5).astype(int)

    def roughness(pixels: np.ndarray) -> float:
        corner = pixels[:40, :24]
        return float(np.abs(np.diff(corner, axis=0)).mean())

    assert roughness(clean) < roughness(noisy)


def test_skin_tones_come_from_light_to_dark() -> None:
    brightness = [sum(tone) for tone in SKIN]
    assert brightness == sorted(brightness, reverse=True)
    assert len(brightness) == 6


def test_every_colour_word_has_dyes_nearest_to_itself() -> None:
    assert set(DYES) == set(COLORS)
    assert all(nearest(dye) == name for name, dyes in DYES.items() for dye in dyes)


def test_small_pictures_are_cheaper() -> None:
    world = World()
    jobs = [draw(number) for number in range(6)]
    spent = {}
    for size in ((192, 64), (384, 128)):
        for job in jobs:
            render(world, *job, size)
        start = time.process_time()
        for job in jobs:
            render(world, *job, size)
        spent[size] = time.process_time() - start
    assert spent[(192, 64)] < 0.8 * spent[(384, 128)]


def test_contact_sheet_lays_out_people_by_cameras() -> None:
    picture = sheet(identities=4, images=2, size=(96, 32), columns=2, gap=4)
    assert picture.size == (2 * (2 * 32 + 12) - 12, 2 * 100 - 4)
    assert picture.getpixel((2 * 32 + 6, 10)) == (250, 250, 250)
