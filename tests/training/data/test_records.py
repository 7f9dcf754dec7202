from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from models.card import Modality
from training.data.records import Record, at_most, label_of, split_identities, with_translations

V, R = Modality.VISIBLE, Modality.INFRARED


def records(*identities: str, modality: Modality = V) -> list[Record]:
    return [Record(Path(f"{name}.png"), name, "1", modality) for name in identities]


def test_labels_are_positions_in_ascending_order() -> None:
    assert label_of(records("0009", "0002", "0009", "0100")) == {"0002": 0, "0009": 1, "0100": 2}


def test_labels_are_the_same_under_every_hash_seed() -> None:
    program = (
        "from pathlib import Path; from models.card import Modality; from training.data.records import *;"
        "print(label_of({Record(Path(n), n, '1', Modality.VISIBLE) for n in 'q w e r t z u i o p'.split()}))"
    )
    answers = {
        subprocess.run(
            [sys.executable, "-c", program],
            cwd=Path(__file__).parents[3],
            env={"PYTHONHASHSEED": seed},
            capture_output=True,
            check=True,
        ).stdout
        for seed in ("0", "1", "4711")
    }
    assert len(answers) == 1


def test_only_identities_without_infrared_are_translated() -> None:
    given = [*records("a", "a", "b"), *records("b", modality=R)]
    added = with_translations(given)[len(given) :]
    assert with_translations(given)[: len(given)] == given
    assert [(r.path.name, r.identity, r.modality, r.translated) for r in added] == [("a.png", "a", R, True)] * 2


def test_visible_images_are_never_translated() -> None:
    with pytest.raises(ValueError, match="only infrared"):
        Record(Path("a.png"), "a", "1", V, translated=True)


def test_a_split_keeps_every_identity_on_one_side() -> None:
    given = records(*(f"{n % 100:04d}" for n in range(300)))
    train, held_out = split_identities(given, 0.2, seed=3)
    assert sorted(map(id, [*train, *held_out])) == sorted(map(id, given))
    assert not {r.identity for r in train} & {r.identity for r in held_out}
    assert 10 <= len({r.identity for r in held_out}) <= 30


def test_a_split_does_not_depend_on_order_or_on_other_identities() -> None:
    given = records(*(f"{n:04d}" for n in range(100)))
    held_out = {r.identity for r in split_identities(given, 0.3, seed=1)[1]}
    more = [*records(*(f"x{n}" for n in range(50))), *reversed(given)]
    again = {r.identity for r in split_identities(more, 0.3, seed=1)[1]}
    assert held_out == {name for name in again if not name.startswith("x")}
    assert held_out != {r.identity for r in split_identities(given, 0.3, seed=2)[1]}


def test_a_group_stays_on_one_side() -> None:
    given = records(*(f"frame{f}-{n}" for f in range(40) for n in range(3)))
    train, held_out = split_identities(given, 0.5, 0, group_of=lambda name: name.split("-")[0])
    assert not {r.identity.split("-")[0] for r in train} & {r.identity.split("-")[0] for r in held_out}
    assert train
    assert held_out


@pytest.mark.parametrize("share", [-0.1, 1.0])
def test_an_impossible_share_is_rejected(share: float) -> None:
    with pytest.raises(ValueError, match=str(share)):
        split_identities(records("a"), share, seed=0)


def test_a_limited_number_of_crops_per_identity_and_modality_is_chosen_evenly() -> None:
    records = [
        Record(Path(f"{identity}_{n}.png"), identity, "1", modality)
        for identity, count in (("a", 7), ("b", 2))
        for modality in Modality
        for n in range(count)
    ]
    chosen = at_most(records, 3)
    assert [r.path.stem for r in chosen if r.modality is Modality.VISIBLE] == ["a_0", "a_2", "a_4", "b_0", "b_1"]
    assert chosen == [r for r in records if r in chosen]
    assert len(chosen) == 10
