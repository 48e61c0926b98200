"""What is left of erased people: marks in files, answers of searches, files that come back, erasures that are killed.

    python benchmarks/erasure.py            write benchmarks/results/erasure.json

A hundred people with marked vectors, tokens, thumbnails, names and captions are planted as the tests plant them
(`tests/end_to_end/planted_people.py`), and fifty are erased. Then erasures of twelve people's gallery are killed.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

from record import ROOT, write

sys.path.insert(0, str(ROOT / "tests" / "end_to_end"))

from killed_erasures import Killed, copied
from planted_people import Planted, found, plant

PEOPLE, KILLED_AT_POINTS, KILLED_AT_MOMENTS = 100, 38, 12


def main() -> None:
    """Measure and write."""
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        erased = _erase_half(plant(root / "crowd", PEOPLE))
        killed = Killed(plant(root / "few", 12, commits=3), root)
        outcome = killed.rounds(KILLED_AT_POINTS, KILLED_AT_MOMENTS, twice=True)
    kills = {
        "killed": outcome.killed,
        "killed_after_the_decision": outcome.begun,
        "killed_again_while_completing": outcome.twice,
        "points_passed_by_one_erasure": killed.points,
        "completed_by_a_restart": outcome.completed,
    }
    path = write("erasure", "python benchmarks/erasure.py", {"erased": erased, "kills": kills})
    print(path.read_text(encoding="utf-8"))


def _erase_half(planted: Planted) -> dict[str, int]:
    people = sorted(planted.marks)
    going = people[::2]
    before = found(planted, going)
    gallery = planted.open()
    certificate = gallery.privacy.erase(gallery.privacy.find(where=f"identity in ({', '.join(going)})"))
    assert certificate is not None
    after = found(planted, going)
    hits = [hit for hit in planted.open().search("anyone", k=10 * PEOPLE) if hit.metadata["identity"] in set(going)]
    again = copied(planted, planted.path.with_name("again")).open().add([planted.folder], recursive=True)
    return {
        "people": len(people),
        "erased": len(going),
        "pictures_erased": certificate.pictures,
        "marks_before": sum(before.values()),
        "marks_after": sum(after.values()),
        "hits_in_searches": len(hits),
        "kept_out_when_added_again": again.refused,
        "came_back": again.added,
    }


if __name__ == "__main__":
    main()
