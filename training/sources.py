"""From the data sets a configuration names to the records of one run."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from models.card import DataSource, Modality
from training.config import LLCM, Folder, Manifest, Pairs, RegDB, Source, SysuMM01, TrainingConfig
from training.data import llcm, regdb, sysu_mm01
from training.data.folder import read_folder, read_pairs
from training.data.manifest import read_manifest
from training.data.records import Record, label_of, split_identities, with_imitations
from training.data.sampler import Pool

__all__ = ["HeldOut", "TrainingData", "read_data", "read_source"]


@dataclass(frozen=True, slots=True)
class HeldOut:
    """Records of identities that take no part in training, of one data set."""

    name: str
    records: tuple[Record, ...]
    misaligned: bool
    """Its pictures are aligned pairs, which count in the misaligned form only."""


@dataclass(frozen=True, slots=True)
class TrainingData:
    """What a run learns from, and what it is judged on."""

    train: tuple[Record, ...]
    held_out: tuple[HeldOut, ...]
    """One for each data set that has two identities or more to be judged on."""
    labels: dict[str, int]
    """Label of each training identity: those that are classified come first."""
    classes: int
    """How many are classified."""
    pools: tuple[Pool, ...]
    """The training identities and their groups, by data set where each has its share of a batch, else all together."""
    sources: tuple[DataSource, ...]
    """What each data set holds, held-out identities included; imitations are not counted as infrared."""

    @property
    def fingerprint(self) -> str:
        """sha256 over what is known of every record but its folder: a resumed run must find the same."""
        digest = hashlib.sha256()
        for part in (self.train, *(held_out.records for held_out in self.held_out)):
            for r in part:
                digest.update(f"{r.path.name}|{r.identity}|{r.camera}|{r.modality}|{r.imitated}\n".encode())
            digest.update(b"\n")
        return digest.hexdigest()


def read_data(config: TrainingConfig) -> TrainingData:
    """Read every source and keep the validation identities out.

    With several sources an identity is called ``SOURCE/IDENTITY``: equal names in two data sets are two people.

    Raises:
        OSError: a data set or a part of it is missing.
        ValueError: a data set is not as it should be, or two have the same name.
    """
    names = [source.name for source in config.data]
    if len(set(names)) < len(names):
        raise ValueError(f"the data sets need different names, found {names}")
    train: list[Record] = []
    pools = []
    held_out = []
    facts = []
    classified: list[Record] = []
    for source in config.data:
        group_of = _grouping(source)
        found = _without_left_out(source, read_source(source), group_of)
        facts.append(_describe(source, found))
        if len(config.data) > 1:
            found = [replace(r, identity=f"{source.name}/{r.identity}") for r in found]
        split = config.validation
        learnt, kept = split_identities(found, split.share, split.seed, _split(source, group_of))
        train += learnt
        classified += learnt if source.classify else []
        pools.append(Pool({r.identity: group_of(r.identity) for r in learnt}, source.per_batch or 0, source.images))
        if _can_judge(kept):
            held_out.append(HeldOut(source.name, tuple(kept), _is_aligned(source)))
    if config.validation.share and not held_out:
        raise ValueError(
            f"a share of {config.validation.share} leaves no data set two identities with both modalities "
            "to validate on: raise validation.share, or set it to 0"
        )
    if not pools[0].identities:
        pools = [Pool({n: g for pool in pools for n, g in pool.groups.items()}, config.batch.identities)]
    if not classified:
        raise ValueError("no data set is classified: classify must be true for one of them at least")
    classes = label_of(classified)
    others = label_of(r for r in train if r.identity not in classes)
    labels = classes | {identity: len(classes) + label for identity, label in others.items()}
    return TrainingData(tuple(train), tuple(held_out), labels, len(classes), tuple(pools), tuple(facts))


def _without_left_out(source: Source, records: list[Record], group_of: Callable[[str], str]) -> list[Record]:
    if not isinstance(source, Folder) or source.leave_out is None:
        return records
    frames = source.leave_out.frames()
    kept = [record for record in records if group_of(record.identity) not in frames]
    if len(kept) == len(records):
        raise ValueError(
            f"{source.name}: no identity is of a frame to leave out, such as {min(frames, default='none')!r}; "
            "does group_pattern give the frame?"
        )
    return kept


def _is_aligned(source: Source) -> bool:
    return isinstance(source, Pairs) or (isinstance(source, Folder) and source.aligned)


def _can_judge(records: Sequence[Record]) -> bool:
    """Whether at least two identities were seen in both modalities."""
    seen = [{r.identity for r in records if r.modality is modality} for modality in Modality]
    return len(set.intersection(*seen)) >= 2


def read_source(source: Source) -> list[Record]:
    """The records of one source, imitations included; of a published data set its training part.

    Raises:
        OSError: a part of it is missing.
        ValueError: it is not as it should be.
    """
    match source:
        case Folder():
            records = read_folder(source.root, source.modality, source.camera_pattern)
            return with_imitations(records) if source.imitate else records
        case Manifest():
            records = read_manifest(source.root)
            return with_imitations(records) if source.imitate else records
        case Pairs():
            return read_pairs(source.root)
        case SysuMM01():
            return sysu_mm01.training_records(source.root, source.identities)
        case RegDB():
            return regdb.training_records(source.root, source.trial)
        case LLCM():
            return llcm.training_records(source.root)


def _grouping(source: Source) -> Callable[[str], str]:
    """Which group an identity belongs to for the split: its own, unless the source's pattern says otherwise."""
    pattern = source.group_pattern if isinstance(source, Folder | Manifest) else None
    if pattern is None:
        return str

    def group_of(identity: str) -> str:
        match = re.search(pattern, identity)
        return match[1] if match else identity

    return group_of


def _split(source: Source, group_of: Callable[[str], str]) -> Callable[[str], str]:
    """The group an identity is split by: as if it were of the source that this one is split as."""
    if source.split_as is None:
        return group_of
    own, other = f"{source.name}/", f"{source.split_as}/"
    return lambda identity: group_of(other + identity.removeprefix(own))


def _describe(source: Source, records: Sequence[Record]) -> DataSource:
    infrared = sum(r.modality is Modality.INFRARED and not r.imitated for r in records)
    imitated = sum(r.imitated for r in records)
    return DataSource(
        name=source.name,
        licence=source.licence,
        identities=len({r.identity for r in records}),
        visible=len(records) - infrared - imitated,
        infrared=infrared,
        remark=f"{imitated} infrared pictures imitated from visible ones" if imitated else "",
    )
