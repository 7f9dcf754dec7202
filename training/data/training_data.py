"""Reading of the data sets of a configuration into training and held-out records."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

from models.card import DataSource, Modality
from training.data import llcm, regdb, sysu_mm01
from training.data.folder import read_folder, read_pairs
from training.data.manifest import read_manifest
from training.data.records import Record, at_most, label_of, split_identities, with_translations
from training.data.sampler import Pool
from training.data.skipped import Skipped
from training.data.sources import LLCM, Folder, Manifest, Pairs, RegDB, Source, SysuMM01

__all__ = ["HeldOut", "TrainingData", "read_data", "read_source"]


@dataclass(frozen=True, slots=True)
class HeldOut:
    """Records of the held-out identities of one data set."""

    name: str
    records: tuple[Record, ...]
    misaligned: bool
    """Whether its images are aligned pairs, for which infrared is mirrored and re-cropped."""

    def at_most(self, images: int | None) -> HeldOut:
        """Limit the number of crops of an identity in a modality."""
        return self if images is None else replace(self, records=tuple(at_most(self.records, images)))


@dataclass(frozen=True, slots=True)
class TrainingData:
    """Training and validation data of a run."""

    train: tuple[Record, ...]
    held_out: tuple[HeldOut, ...]
    """One for each data set with at least two held-out identities in both modalities."""
    labels: dict[str, int]
    """Label of each training identity; classified identities come first."""
    classes: int
    """Number of classified identities."""
    pools: tuple[Pool, ...]
    """The training identities and their groups: a pool for each data set with a share of the batch, else one pool."""
    sources: tuple[DataSource, ...]
    """Contents of each data set with its held-out identities; translations are not counted as infrared."""

    skipped: tuple[str, ...] = ()
    """A line for each kind of skipped file or folder, see :class:`training.data.skipped.Skipped`."""

    @property
    def fingerprint(self) -> str:
        """sha256 over the fields of every record except its folder; it must be the same in a resumed run."""
        digest = hashlib.sha256()
        for part in (self.train, *(held_out.records for held_out in self.held_out)):
            for r in part:
                line = f"{r.path.name}|{r.identity}|{r.camera}|{r.modality}|{r.translated}\n"
                digest.update(line.encode("utf-8", "surrogateescape"))
            digest.update(b"\n")
        return digest.hexdigest()


def read_data(
    sources: Sequence[Source],
    batch_identities: int,
    *,
    held_out: float = 0.0,
    seed: int = 0,
    held_out_images: int | None = None,
) -> TrainingData:
    """Read every source and hold the validation identities out.

    With several sources an identity is named ``SOURCE/IDENTITY``: equal names in two data sets are different people.

    Args:
        sources: the data sets.
        batch_identities: identities of a batch, for sources without ``per_batch``.
        held_out: expected share of held-out identities, in [0, 1).
        seed: decides which identities are held out.
        held_out_images: maximum number of crops of a held-out identity in a modality; None: all.

    Raises:
        OSError: a data set or a part of it is missing.
        ValueError: a data set is malformed, or two have the same name.
    """
    names = [source.name for source in sources]
    if len(set(names)) < len(names):
        raise ValueError(f"the data sets need different names, found {names}")
    if not any(source.classify for source in sources):
        raise ValueError("no data set is classified: classify must be true for at least one")
    parts = [_read_part(source, held_out, seed, qualified=len(sources) > 1) for source in sources]
    validation = tuple(
        part.held_out.at_most(held_out_images) for part in parts if _is_measurable(part.held_out.records)
    )
    if held_out and not validation:
        raise ValueError(
            f"a validation.share of {held_out} holds out fewer than two identities with both modalities in every data "
            "set: raise validation.share, or set it to 0"
        )
    pools = [part.pool for part in parts]
    if not pools[0].identities:
        pools = [Pool({n: g for pool in pools for n, g in pool.groups.items()}, batch_identities)]
    train = tuple(record for part in parts for record in part.train)
    classes = label_of(r for part, source in zip(parts, sources, strict=True) if source.classify for r in part.train)
    others = label_of(r for r in train if r.identity not in classes)
    labels = classes | {identity: len(classes) + label for identity, label in others.items()}
    return TrainingData(
        train,
        validation,
        labels,
        len(classes),
        tuple(pools),
        sources=tuple(part.description for part in parts),
        skipped=tuple(line for part in parts for line in part.skipped),
    )


class _Part(NamedTuple):
    """Contribution of one source."""

    train: list[Record]
    held_out: HeldOut
    pool: Pool
    description: DataSource
    skipped: list[str]


def _read_part(source: Source, held_out: float, seed: int, *, qualified: bool) -> _Part:
    group_of = _grouping(source)
    skipped = Skipped()
    found = _without_left_out(source, read_source(source, skipped), group_of)
    description = _describe(source, found)
    if qualified:
        found = [replace(r, identity=f"{source.name}/{r.identity}") for r in found]
    train, validation = split_identities(found, held_out, seed, _split(source, group_of))
    groups = {r.identity: group_of(r.identity) for r in train}
    return _Part(
        train,
        HeldOut(source.name, tuple(validation), _is_aligned(source)),
        Pool(groups, source.per_batch or 0, source.images),
        description,
        [f"{source.name}: {line}" for line in skipped.lines()],
    )


def _without_left_out(source: Source, records: list[Record], group_of: Callable[[str], str]) -> list[Record]:
    if not isinstance(source, Folder) or source.leave_out is None:
        return records
    frames = source.leave_out.of(group_of(record.identity) for record in records)
    if not frames:
        raise ValueError(
            f"{source.name}: no identity belongs to a frame to leave out; check that group_pattern matches the frame"
        )
    return [record for record in records if group_of(record.identity) not in frames]


def _is_aligned(source: Source) -> bool:
    return isinstance(source, Pairs) or (isinstance(source, Folder) and source.aligned)


def _is_measurable(records: Sequence[Record]) -> bool:
    """Return whether at least two identities have crops of both modalities."""
    seen = [{r.identity for r in records if r.modality is modality} for modality in Modality]
    return len(set.intersection(*seen)) >= 2


def read_source(source: Source, skipped: Skipped | None = None) -> list[Record]:
    """Read the records of one source with translations; of a published data set, those of its training split.

    Raises:
        OSError: a part of it is missing.
        ValueError: it is malformed.
    """
    match source:
        case Folder():
            records = read_folder(source.root, source.modality, source.camera_pattern, skipped)
            return with_translations(records) if source.translate else records
        case Manifest():
            records = read_manifest(source.root)
            return with_translations(records) if source.translate else records
        case Pairs():
            return read_pairs(source.root, skipped)
        case SysuMM01():
            return sysu_mm01.training_records(source.root, source.identities)
        case RegDB():
            return regdb.training_records(source.root, source.trial)
        case LLCM():
            return llcm.training_records(source.root)


def _grouping(source: Source) -> Callable[[str], str]:
    """Return a function that gives the group of an identity: by the source's pattern, else the identity itself."""
    pattern = source.group_pattern if isinstance(source, Folder | Manifest) else None
    if pattern is None:
        return str

    def group_of(identity: str) -> str:
        match = re.search(pattern, identity)
        return match[1] if match else identity

    return group_of


def _split(source: Source, group_of: Callable[[str], str]) -> Callable[[str], str]:
    """Return a function that gives the group for the split: with ``split_as``, that of the other source."""
    if source.split_as is None:
        return group_of
    own, other = f"{source.name}/", f"{source.split_as}/"
    return lambda identity: group_of(other + identity.removeprefix(own))


def _describe(source: Source, records: Sequence[Record]) -> DataSource:
    infrared = sum(r.modality is Modality.INFRARED and not r.translated for r in records)
    translated = sum(r.translated for r in records)
    return DataSource(
        name=source.name,
        licence=source.licence,
        identities=len({r.identity for r in records}),
        visible=len(records) - infrared - translated,
        infrared=infrared,
        remark=f"{translated} infrared images translated from visible ones" if translated else "",
    )
