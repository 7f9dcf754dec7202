from __future__ import annotations

from collections import Counter
from itertools import chain
from pathlib import Path

import pytest

from models.card import Modality
from training.data.records import Record
from training.data.sampler import BalancedSampler, Pool

V, R = Modality.VISIBLE, Modality.INFRARED


def make(counts: dict[str, tuple[int, int]]) -> list[Record]:
    """Records with the given numbers of visible and infrared images, interleaved over identities."""
    records = [
        Record(Path(f"{name}/{m}{n}.png"), name, "1", m)
        for name, number in counts.items()
        for m, many in zip(Modality, number, strict=True)
        for n in range(many)
    ]
    return sorted(records, key=lambda r: (r.path.name, r.identity))


PEOPLE = make({f"{7 * n + 3:04d}": (3 + n % 5, 2 + n % 4) for n in range(23)})


@pytest.mark.parametrize(("identities", "images"), [(1, 1), (3, 2), (8, 4), (23, 1)])
def test_a_batch_holds_p_identities_with_k_images_of_each_modality(identities: int, images: int) -> None:
    for batch in BalancedSampler(PEOPLE, identities, images, seed=5):
        counts = Counter((PEOPLE[d.row].identity, PEOPLE[d.row].modality) for d in batch)
        assert len(counts) == 2 * identities
        assert set(counts.values()) == {images}


@pytest.mark.parametrize("world_size", [1, 2, 3])
@pytest.mark.parametrize(("visible", "infrared"), [(9, 4), (4, 9), (6, 6)])
def test_the_length_is_the_number_of_yielded_batches(visible: int, infrared: int, world_size: int) -> None:
    records = make({str(n): (visible, infrared) for n in range(13)})
    for rank in range(world_size):
        sampler = BalancedSampler(records, 3, 2, seed=0, rank=rank, world_size=world_size)
        expected = 13 * max(visible, infrared) // 6 // world_size
        assert len(sampler) == len(list(sampler)) == expected


@pytest.mark.parametrize(("world_size", "expected"), [(1, 7), (2, 3), (9, 1)])
def test_an_epoch_has_the_given_number_of_batches(world_size: int, expected: int) -> None:
    samplers = [
        BalancedSampler(PEOPLE, 3, 2, seed=0, rank=rank, world_size=world_size, per_epoch=7)
        for rank in range(world_size)
    ]
    assert {len(list(sampler)) for sampler in samplers} == {len(samplers[0])} == {expected}


def test_sysu_mm01_gives_695_batches() -> None:
    spread = {str(n): (22258 // 395 + (n < 22258 % 395), 11909 // 395 + (n < 11909 % 395)) for n in range(395)}
    assert len(BalancedSampler(make(spread), 8, 4, seed=0)) == 695


def test_images_repeat_only_when_an_identity_has_too_few() -> None:
    for batch in BalancedSampler(PEOPLE, 8, 4, seed=1):
        drawn = Counter(d.row for d in batch)
        for row, times in drawn.items():
            mine = PEOPLE[row]
            many = sum((r.identity, r.modality) == (mine.identity, mine.modality) for r in PEOPLE)
            assert times == 1 or many < 4


def test_all_identities_are_drawn_before_one_is_repeated() -> None:
    records = make({str(n): (50, 50) for n in range(9)})
    sampler = list(BalancedSampler(records, 3, 1, seed=0))
    for start in range(0, len(sampler) - 2, 3):
        drawn = Counter(records[d.row].identity for batch in sampler[start : start + 3] for d in batch)
        assert drawn == Counter({str(n): 2 for n in range(9)})


def test_the_same_seed_and_epoch_give_the_same_batches_and_epochs_differ() -> None:
    one, other, third = (BalancedSampler(PEOPLE, 4, 2, seed=s) for s in (1, 1, 2))
    first = list(one)
    assert first == list(one) == list(other)
    assert first != list(third)
    one.set_epoch(1)
    rows = [[d.row for d in batch] for batch in one]
    assert rows != [[d.row for d in batch] for batch in first]
    assert {d.epoch for d in chain(*one)} == {1}


def test_the_drawn_identities_do_not_depend_on_the_order_of_records() -> None:
    def people(records: list[Record]) -> list[list[str]]:
        return [sorted({records[d.row].identity for d in batch}) for batch in BalancedSampler(records, 4, 2, seed=1)]

    assert people(PEOPLE) == people(PEOPLE[::-1])


def test_ranks_partition_the_epoch_of_one_process() -> None:
    whole = list(BalancedSampler(PEOPLE, 4, 2, seed=9))
    parts = [list(BalancedSampler(PEOPLE, 4, 2, seed=9, rank=r, world_size=3)) for r in range(3)]
    woven = list(chain(*zip(*parts, strict=True)))
    assert woven == whole[: len(woven)]
    assert len(whole) - len(woven) < 3


def test_a_restored_sampler_continues() -> None:
    one = BalancedSampler(PEOPLE, 4, 2, seed=1)
    one.set_epoch(7)
    other = BalancedSampler(PEOPLE, 4, 2, seed=1)
    other.load_state_dict(one.state_dict())
    assert list(other) == list(one)
    with pytest.raises(ValueError, match="seed: stored 1, this sampler has 2"):
        BalancedSampler(PEOPLE, 4, 2, seed=2).load_state_dict(one.state_dict())


def test_a_tiny_data_set_has_a_batch() -> None:
    records = make({"a": (1, 1), "b": (1, 2)})
    assert len(list(BalancedSampler(records, 2, 4, seed=0))) == 1


def test_too_few_identities_are_counted() -> None:
    with pytest.raises(ValueError, match="needs 24 identities with both modalities, found 23"):
        BalancedSampler(PEOPLE, 24, 1, seed=0)


def test_an_identity_with_one_modality_is_an_error_or_ignored_on_request() -> None:
    records = [*PEOPLE, *make({"bright": (5, 0)}), *make({"dark": (0, 5)})]
    with pytest.raises(ValueError, match="2 identities have only one modality: bright, dark"):
        BalancedSampler(records, 4, 2, seed=0)
    sampler = BalancedSampler(records, 4, 2, seed=0, skip_single_modality=True)
    assert list(sampler) == list(BalancedSampler(PEOPLE, 4, 2, seed=0))


@pytest.mark.parametrize(("rank", "world_size"), [(1, 1), (-1, 2), (0, 0)])
def test_an_invalid_rank_is_rejected(rank: int, world_size: int) -> None:
    with pytest.raises(ValueError, match="rank"):
        BalancedSampler(PEOPLE, 4, 2, seed=0, rank=rank, world_size=world_size)


def test_batch_counts_below_one_are_rejected() -> None:
    with pytest.raises(ValueError, match="at least 1"):
        BalancedSampler(PEOPLE, 0, 2, seed=0)


WINDOWS = make({f"f{n // 3}-{n % 3}": (1, 1) for n in range(60)})
FRAMES = {record.identity: record.identity.split("-")[0] for record in WINDOWS}


def drawn(sampler: BalancedSampler, records: list[Record]) -> list[list[str]]:
    return [list(dict.fromkeys(records[d.row].identity for d in batch)) for batch in sampler]


def test_every_batch_has_the_share_of_each_pool() -> None:
    records = PEOPLE + WINDOWS
    pools = [Pool({r.identity: r.identity for r in PEOPLE}, 3), Pool(FRAMES, 5)]
    sampler = BalancedSampler(records, 8, 2, seed=1, pools=pools)
    batches = drawn(sampler, records)
    assert len(batches) == len(sampler) > 5
    for batch in batches:
        assert len(set(batch)) == 8
        assert sum(name in FRAMES for name in batch) == 5


def test_a_pool_has_its_own_number_of_images() -> None:
    records = PEOPLE + WINDOWS
    pools = [Pool({r.identity: r.identity for r in PEOPLE}, 3, images=2), Pool(FRAMES, 5)]
    for batch in BalancedSampler(records, 8, 1, seed=1, pools=pools):
        counts = Counter((records[d.row].identity, records[d.row].modality) for d in batch)
        assert len(counts) == 16
        assert all(count == (1 if name in FRAMES else 2) for (name, _), count in counts.items())


def frames_shared(neighbours: int) -> list[int]:
    """Count the frames with several windows in each batch of 12 of an epoch."""
    sampler = BalancedSampler(WINDOWS, 12, 1, seed=4, pools=[Pool(FRAMES, 12)], neighbours=neighbours)
    batches = drawn(sampler, WINDOWS)
    assert Counter(name for batch in batches for name in batch) == Counter(dict.fromkeys(FRAMES, 1))
    return [sum(n > 1 for n in Counter(FRAMES[name] for name in batch).values()) for batch in batches]


def test_neighbours_of_a_group_are_in_the_same_batch() -> None:
    assert frames_shared(3) == [4] * 5  # three windows per frame: four whole frames per batch
    assert sum(frames_shared(1)) < sum(frames_shared(2)) < sum(frames_shared(3)) + 1


def test_pools_that_do_not_add_up_to_a_batch_are_rejected() -> None:
    own = {record.identity: record.identity for record in PEOPLE}
    with pytest.raises(ValueError, match="a batch has 8 identities, but its pools have 7"):
        BalancedSampler(PEOPLE, 8, 1, seed=0, pools=[Pool(own, 7)])
    with pytest.raises(ValueError, match="22 identities are not in any pool, first '0003'"):
        BalancedSampler(PEOPLE, 1, 1, seed=0, pools=[Pool({"0010": "0010"}, 1)])
    with pytest.raises(ValueError, match="a batch needs 24 identities with both modalities, found 23"):
        BalancedSampler(PEOPLE, 24, 1, seed=0, pools=[Pool(own, 24)])
    with pytest.raises(ValueError, match="at least 1 identity, image and neighbour"):
        BalancedSampler(PEOPLE, 2, 1, seed=0, neighbours=0)
