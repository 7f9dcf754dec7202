from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from models.card import Modality
from training.data.augmentation import Augmentation, Stream
from training.data.cache import CropCache
from training.data.dataset import Batch, PlainCrops, TrainingCrops, batches, collate
from training.data.images import load
from training.data.misalignment import mirror_and_recrop
from training.data.records import Record, label_of, with_translations
from training.data.sampler import BalancedSampler, Draw
from training.data.translator import translate_by_name
from training.translation.channel import ChannelTranslation

SIZE = (48, 24)
TRANSLATOR = ChannelTranslation()


@pytest.fixture(scope="module")
def records(people_records: list[Record]) -> list[Record]:
    """Half of the identities with real infrared, half with translations."""
    kept = [r for r in people_records if r.modality is Modality.VISIBLE or r.identity < "0004"]
    return with_translations(kept)


@pytest.fixture(scope="module")
def cache(records: list[Record], tmp_path_factory: pytest.TempPathFactory) -> CropCache:
    return CropCache.open(records, tmp_path_factory.mktemp("cache"), SIZE)


def crops(records: list[Record], cache: CropCache, *streams: Stream, erasing: float = 0.5) -> TrainingCrops:
    return TrainingCrops(
        records,
        cache,
        label_of(records),
        seed=3,
        augmentation=Augmentation(erasing=erasing, translator=TRANSLATOR, transition=TRANSLATOR),
        visible_streams=streams or (Stream.VISIBLE, Stream.EXCHANGED),
    )


def epochs(records: list[Record], cache: CropCache, workers: int) -> list[Batch]:
    sampler = BalancedSampler(records, 3, 2, seed=1)
    loader = batches(crops(records, cache, Stream.VISIBLE, Stream.TRANSITION), sampler, workers=workers)
    found: list[Batch] = []
    for epoch in range(2):
        sampler.set_epoch(epoch)
        found.extend(loader)
    return found


@pytest.mark.filterwarnings("ignore:This DataLoader will create 4 worker processes")
def test_any_number_of_workers_gives_the_same_images(records: list[Record], cache: CropCache) -> None:
    single = epochs(records, cache, 0)
    for workers in (1, 4):
        others = epochs(records, cache, workers)
        assert len(others) == len(single) > 2
        for a, b in zip(single, others, strict=True):
            for name in ("images", "identities", "modalities", "roles", "pairs"):
                assert torch.equal(getattr(a, name), getattr(b, name))


def test_epochs_and_repeated_draws_differ(records: list[Record], cache: CropCache) -> None:
    data = crops(records, cache)
    images = {data[Draw(0, epoch, place)][0].image.tobytes() for epoch in range(3) for place in range(3)}
    assert len(images) == 9


def test_loading_does_not_use_the_global_generators(records: list[Record], cache: CropCache) -> None:
    torch.manual_seed(0)
    before = torch.get_rng_state()
    epochs(records, cache, 0)
    assert torch.equal(torch.get_rng_state(), before)


def test_a_batch_has_the_labels_of_each_image(records: list[Record], cache: CropCache) -> None:
    labels = label_of(records)
    sampler = BalancedSampler(records, 4, 2, seed=1)
    draws = next(iter(sampler))
    batch = next(iter(batches(crops(records, cache), sampler, workers=0)))
    assert batch.images.dtype == torch.uint8
    assert batch.images.shape == (4 * 2 * 3, *SIZE, 3)
    expected = []
    for draw in draws:
        record = records[draw.row]
        many = 2 if record.modality is Modality.VISIBLE else 1
        expected += [(labels[record.identity], record.modality.index, record.modality.index, -1)] * many
    found = zip(batch.identities, batch.modalities, batch.roles, batch.pairs, strict=True)
    assert [tuple(int(v) for v in row) for row in found] == expected
    assert all(t.dtype == torch.int64 for t in (batch.identities, batch.modalities, batch.roles, batch.pairs))
    assert len(batch.to("cpu")) == len(batch)


def test_a_transition_shares_crop_and_flip_with_its_visible_source(records: list[Record], cache: CropCache) -> None:
    data = TrainingCrops(
        records,
        cache,
        label_of(records),
        seed=3,
        augmentation=Augmentation(
            erasing=0,
            translator=TRANSLATOR,
            transition=ChannelTranslation(luma=0, gamma=(1, 1), percentiles=None),
        ),
        visible_streams=(Stream.TRANSITION, Stream.VISIBLE, Stream.EXCHANGED),
    )
    batch = collate([data[d] for d in next(iter(BalancedSampler(records, 4, 2, seed=1)))])
    transitions = (batch.roles == 2).nonzero().ravel().tolist()
    assert len(transitions) == 8
    for row in transitions:
        (source,) = ((batch.pairs == batch.pairs[row]) & (batch.roles == 0)).nonzero().ravel().tolist()
        t, v = batch.images[row], batch.images[source]
        assert any(torch.equal(t, v[..., [c, c, c]]) for c in range(3))
        assert batch.modalities[row] == 1
        assert batch.identities[row] == batch.identities[source]
    assert (batch.pairs >= 0).sum() == 16


def test_erasing_is_drawn_separately_for_a_transition(records: list[Record], cache: CropCache) -> None:
    data = crops(records, cache, Stream.VISIBLE, Stream.TRANSITION, erasing=1)
    fill = np.array(Augmentation().fill)
    different = 0
    for place in range(20):
        v, t = data[Draw(0, 0, place)]
        different += bool(((v.image == fill).all(2) != (t.image == fill).all(2)).any())
    assert different == 20


def test_translated_infrared_is_grey(records: list[Record], cache: CropCache) -> None:
    row = next(n for n, r in enumerate(records) if r.translated)
    (view,) = crops(records, cache, erasing=0)[Draw(row, 0, 0)]
    assert view.stream is Stream.INFRARED
    assert (view.image == view.image[..., :1]).all()


@pytest.mark.parametrize("streams", [(Stream.INFRARED,), (Stream.TRANSITION,), ()])
def test_impossible_streams_are_rejected(records: list[Record], cache: CropCache, streams: tuple[Stream, ...]) -> None:
    with pytest.raises(ValueError, match="stream"):
        TrainingCrops(records, cache, label_of(records), seed=0, visible_streams=streams)


def test_an_identity_without_a_label_is_named(records: list[Record], cache: CropCache) -> None:
    with pytest.raises(ValueError, match="'0006'"):
        TrainingCrops(records, cache, label_of(records[:25]), seed=0)


def test_plain_crops_equal_the_decoded_files(records: list[Record], cache: CropCache) -> None:
    plain = PlainCrops(records, cache, translator=TRANSLATOR)
    moved = PlainCrops(records, cache, misaligned=True, translator=TRANSLATOR)
    assert len(plain) == len(records)
    for row, record in enumerate(records):
        expected = load(record, SIZE)
        if record.translated:
            expected = translate_by_name(expected, record.path.name, ChannelTranslation())
        image, modality = plain[row]
        assert (image == expected).all()
        assert modality == record.modality.index
        if record.modality is Modality.INFRARED:
            expected = mirror_and_recrop(expected, record.path.name)
        assert (moved[row][0] == expected).all()


def test_plain_crops_do_not_depend_on_their_folder(records: list[Record], cache: CropCache, tmp_path: Path) -> None:
    translated = next(r for r in records if r.translated)
    copy = tmp_path / translated.path.name
    copy.write_bytes(translated.path.read_bytes())
    moved = [replace(translated, path=copy)]
    there = PlainCrops(moved, CropCache.open(moved, tmp_path / "cache", SIZE), translator=TRANSLATOR)
    assert (there[0][0] == PlainCrops([translated], cache, translator=TRANSLATOR)[0][0]).all()


def test_a_translated_record_needs_a_translator(records: list[Record], cache: CropCache) -> None:
    row = next(n for n, r in enumerate(records) if r.translated)
    with pytest.raises(ValueError, match="no translator"):
        PlainCrops(records, cache)[row]
