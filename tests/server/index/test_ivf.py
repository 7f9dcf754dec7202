"""Inverted lists: recall against brute force, deletions, growth and compaction."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from concurrent.futures import CancelledError
from dataclasses import replace

import numpy as np
import pytest

from models.card import Modality
from server.domain.types import Filter, Fusion, Item, NewItem, Rerank, Search, SearchResult, Vectors
from server.gallery.galleries import Galleries
from server.gallery.live_gallery import LiveGallery
from server.index.exact import ExactIndex
from server.index.ivf import InvertedLists
from server.index.ivf_builder import MIN_RECALL, build_inverted_lists
from server.index.ranking import fuse
from tests.server.gallery.builders import FINGERPRINT, PEOPLE, crops, expected_hits, found, passes, unit_vectors
from tests.server.memory_store import MemoryStore

DIMENSION = 16

HELD = crops(DIMENSION)
QUERIES = np.stack([new.vector for new in crops(DIMENSION, seed=5, shots=2)])
MADE: list[InvertedLists] = []


@pytest.fixture
def galleries() -> Iterator[Galleries]:
    """A gallery ``g`` with inverted lists."""
    made = Galleries(MemoryStore(), ExactIndex, approximate_above=1000)
    made.catalog.create("g", model="m", fingerprint=FINGERPRINT, dimension=DIMENSION)
    made.writer.put("g", HELD, fingerprint=FINGERPRINT)
    if not MADE:
        made.maintenance.build_lists()
        MADE.append(lists_of(made))
    live_of(made).set_lists(MADE[0])  # the rows are the same each time
    yield made
    made.close()


def ask(galleries: Galleries, vectors: Vectors, fusion: Fusion = Fusion.MEAN, **options: object) -> SearchResult:
    requests = Search(fuse(np.atleast_2d(vectors), fusion), **options)  # type: ignore[arg-type]
    (result,) = galleries.query.search("g", [requests], fingerprint=FINGERPRINT)
    return result


def lists_of(galleries: Galleries) -> InvertedLists:
    lists = live_of(galleries).view().lists
    assert lists is not None
    return lists


def live_of(galleries: Galleries) -> LiveGallery:
    return galleries.handles.by_name["g"].ready()


def recall(results: list[SearchResult], queries: Vectors, held: list[NewItem], where: Filter | None = None) -> float:
    """Return the share of the ten best items that pass that are hits; assert that their scores are exact."""
    passing = [new for new in held if where is None or passes(new.item, where)]
    products = np.stack([new.vector for new in passing]).astype(np.float64) @ queries.T.astype(np.float64)
    shares = []
    for result, column in zip(results, products.T, strict=True):
        scores = {new.item.id: score for new, score in zip(passing, column.tolist(), strict=True)}
        hits = found(result)
        assert hits == [(id, pytest.approx(scores[id], abs=1e-6)) for id, _ in hits]
        assert hits == sorted(hits, key=lambda hit: (-hit[1], hit[0]))
        shares.append(len(dict(hits).keys() & set(sorted(scores, key=scores.__getitem__)[-10:])) / 10)
    return float(np.mean(shares))


@pytest.mark.parametrize("modality", [None, *Modality])
def test_lists_reach_their_stated_recall_also_across_modalities(
    galleries: Galleries, modality: Modality | None
) -> None:
    where = Filter(modality=modality)
    results = [ask(galleries, query, where=where) for query in QUERIES[:40]]
    looked = lists_of(galleries).depths[0].breadth
    if modality is None:
        assert looked * 2 < len(HELD) / 5  # and by far not at everything
        assert {result.recall for result in results} == {galleries.maintenance.recalls()["g"]}
        assert MIN_RECALL <= (results[0].recall or 0) <= 1
    assert recall(results, QUERIES[:40], HELD, where) >= MIN_RECALL - 0.01
    assert all(result.searched == (len(HELD) if modality is None else len(HELD) // 2) for result in results)


@pytest.mark.parametrize(
    "options",
    [
        {"exact": True},
        {"group": True},
        {"k": 101},
        {"rerank": Rerank(candidates=101)},
        {"where": Filter(identities=frozenset({"p1", "p2"}))},
        {"fusion": Fusion.MAX},
    ],
    ids=["asked for", "groups", "many hits", "many candidates", "few rows", "many queries"],
)
def test_searches_that_the_lists_cannot_serve_are_exact(galleries: Galleries, options: dict[str, object]) -> None:
    queries = QUERIES[:8]  # too many places to look at, where their best score counts
    result, oracle = ask(galleries, queries, **options), Galleries(MemoryStore(), ExactIndex)
    oracle.catalog.create("g", model="m", fingerprint=FINGERPRINT, dimension=DIMENSION)
    oracle.writer.put("g", HELD, fingerprint=FINGERPRINT)
    assert result == ask(oracle, queries, **options)
    assert result.recall is None


def test_re_ranking_and_a_mean_of_queries_may_be_approximate(galleries: Galleries) -> None:
    assert ask(galleries, QUERIES[:1], rerank=Rerank(candidates=10, k1=5, k2=2)).recall is not None
    assert ask(galleries, QUERIES[:2], fusion=Fusion.MEAN).recall is not None


def test_a_further_page_is_exact_behind_the_first(galleries: Galleries) -> None:
    first = ask(galleries, QUERIES[0])
    second = ask(galleries, QUERIES[0], after=first.end)
    assert first.recall is not None
    assert second.recall is None
    ranked = expected_hits(HELD, QUERIES[:1])
    last = found(first)[-1]
    assert found(second) == [hit for hit in ranked if (-hit[1], hit[0]) > (-last[1], last[0])][:10]


def test_batched_searches_equal_separate_searches(galleries: Galleries) -> None:
    requests = [
        Search(QUERIES[:1]),
        Search(QUERIES[1:2], exact=True),
        Search(QUERIES[2:3]),
        Search(QUERIES[3:4], group=True),
    ]
    together = galleries.query.search("g", requests, fingerprint=FINGERPRINT)
    alone = [galleries.query.search("g", [one], fingerprint=FINGERPRINT)[0] for one in requests]
    assert together == alone
    assert [result.recall is None for result in together] == [False, True, False, True]


def test_writes_after_the_lists_were_built_are_seen_at_once(galleries: Galleries) -> None:
    made = lists_of(galleries)
    new = unit_vectors(3, DIMENSION, seed=77)
    items = [NewItem(Item(f"new{n}", Modality.VISIBLE), vector) for n, vector in enumerate(new)]
    galleries.writer.put("g", items, fingerprint=FINGERPRINT)
    assert [found(ask(galleries, vector))[0] for vector in new] == [(f"new{n}", pytest.approx(1)) for n in range(3)]
    replaced = HELD[0].item.id
    galleries.writer.put("g", [replace(HELD[0], vector=new[1])], fingerprint=FINGERPRINT)
    assert {id for id, _ in found(ask(galleries, new[1]))[:2]} == {"new1", replaced}
    galleries.erasure.delete_item("g", "new0")
    assert found(ask(galleries, new[0]))[0][0] != "new0"
    assert lists_of(galleries) is made
    assert ask(galleries, new[0]).recall is not None


def test_search_skips_deleted_items_and_lists_drop_them(galleries: Galleries) -> None:
    person, half = [new for new in HELD if new.item.identity == "p7"], HELD[:100]
    removed = {new.item.id for new in person + half}
    galleries.erasure.erase("g", Filter(identities=frozenset({"p7"})))
    for new in half:
        if new.item.identity != "p7":
            galleries.erasure.delete_item("g", new.item.id)
    remaining = [new for new in HELD if new.item.id not in removed]
    results = [ask(galleries, query) for query in QUERIES[:40]]
    assert all(result.recall is not None for result in results)
    assert not {id for result in results for id, _ in found(result)} & removed
    galleries.maintenance.run()
    results = [ask(galleries, query) for query in QUERIES[:40]]
    assert recall(results, QUERIES[:40], remaining) >= MIN_RECALL - 0.02

    view, vectors = live_of(galleries).view(), {new.item.id: new.vector for new in remaining}
    named = []
    for part in lists_of(galleries).parts:
        for number, centroid in enumerate(part.centroids):
            ids = [view.ids[row] for row in part.members[part.starts[number] : part.starts[number + 1]].tolist()]
            named += ids
            total = sum((vectors[id].astype(np.float64) for id in ids), np.zeros(DIMENSION))
            expected = total / np.linalg.norm(total) if ids else total
            np.testing.assert_allclose(centroid, expected, atol=1e-5)  # nothing of the others is in it
    assert sorted(named) == sorted(vectors)


def test_the_centroid_of_an_emptied_list_is_zero(galleries: Galleries) -> None:
    lists, view = lists_of(galleries), live_of(galleries).view()
    alive = view.alive.copy()
    alive[lists.parts[0].members[lists.parts[0].starts[3] : lists.parts[0].starts[4]]] = False
    part = lists.without_dead(view.index, alive).parts[0]
    assert part.sizes[3] == 0
    assert not part.centroids[3].any()
    assert lists.without_dead(view.index, view.alive) is lists


def test_compacting_keeps_the_lists(galleries: Galleries) -> None:
    new = NewItem(Item("new", Modality.VISIBLE), unit_vectors(1, DIMENSION, seed=78)[0])
    galleries.writer.put("g", [new], fingerprint=FINGERPRINT)
    before = live_of(galleries)
    galleries.erasure.erase("g", Filter(cameras=frozenset({"c1"})))
    galleries.maintenance.run()
    assert live_of(galleries) is not before
    assert len(live_of(galleries).view().alive) == 2 * len(HELD) // 3 + 1
    remaining = [held for held in HELD if held.item.camera != "c1"]
    results = [ask(galleries, query) for query in QUERIES[:40]]
    assert all(result.recall is not None for result in results)
    assert recall(results, QUERIES[:40], [*remaining, new]) >= MIN_RECALL - 0.02
    assert found(ask(galleries, new.vector))[0][0] == "new"


def test_lists_are_rebuilt_after_much_growth(galleries: Galleries) -> None:
    made = lists_of(galleries)
    galleries.writer.put("g", crops(DIMENSION, seed=9, prefix="a", shots=2), fingerprint=FINGERPRINT)
    galleries.maintenance.build_lists()
    assert lists_of(galleries) is made
    galleries.writer.put("g", crops(DIMENSION, seed=8, prefix="b", shots=6), fingerprint=FINGERPRINT)
    galleries.maintenance.build_lists()
    assert lists_of(galleries).size == len(HELD) + 2 * PEOPLE * 8


def test_a_gallery_that_has_become_small_is_exact_again(galleries: Galleries) -> None:
    galleries.erasure.erase("g", Filter(cameras=frozenset({"c0", "c1"})))
    galleries.maintenance.build_lists()
    assert galleries.maintenance.recalls() == {"g": None}
    assert ask(galleries, QUERIES[0]).recall is None


def test_search_stays_exact_where_lists_are_not_worthwhile(caplog: pytest.LogCaptureFixture) -> None:
    """With random vectors, finding 99 % requires scanning almost everything."""
    galleries = Galleries(MemoryStore(), ExactIndex, approximate_above=1000)
    galleries.catalog.create("g", model="m", fingerprint=FINGERPRINT, dimension=64)
    vectors = unit_vectors(2000, 64)
    items = [NewItem(Item(f"i{n}", Modality.VISIBLE), vector) for n, vector in enumerate(vectors)]
    galleries.writer.put("g", items, fingerprint=FINGERPRINT)
    with caplog.at_level(logging.INFO):
        galleries.maintenance.build_lists()
        galleries.maintenance.build_lists()
    assert [record.message.split(":")[0] for record in caplog.records] == ["gallery g, 2000 rows"]  # and not again
    assert "searched exactly" in caplog.text
    assert galleries.maintenance.recalls() == {"g": None}


@pytest.mark.parametrize("above", [None, len(HELD)])
def test_search_is_exact_without_the_setting_or_below_it(above: int | None) -> None:
    galleries = Galleries(MemoryStore(), ExactIndex, approximate_above=above)
    galleries.catalog.create("g", model="m", fingerprint=FINGERPRINT, dimension=DIMENSION)
    galleries.writer.put("g", HELD, fingerprint=FINGERPRINT)
    galleries.maintenance.build_lists()
    assert galleries.maintenance.recalls() == {"g": None}


def test_building_lists_can_be_cancelled(galleries: Galleries) -> None:
    calls, view = iter(range(1000)), live_of(galleries).view()
    with pytest.raises(CancelledError):
        build_inverted_lists(view.index, view.modality, view.alive, lambda: next(calls) > 4)
    live_of(galleries).set_lists(None)
    galleries.maintenance.build_lists(lambda: True)
    assert galleries.maintenance.recalls() == {"g": None}


def test_lists_are_not_used_after_compaction_has_moved_their_rows(galleries: Galleries) -> None:
    live, lists = live_of(galleries), lists_of(galleries)
    opened = galleries.handles.by_name["g"]
    opened.set_lists(live, None, None)  # not what is there
    assert lists_of(galleries) is lists
    opened.replace(lambda: live.compacted(lambda: ExactIndex(DIMENSION)))
    opened.set_lists(live, lists, None)
    assert galleries.maintenance.recalls()["g"] is not None
