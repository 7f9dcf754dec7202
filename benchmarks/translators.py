"""Whether a translation helps cross-modality retrieval, and whether it preserves identities.

    python -m benchmarks.translators runs/translator.pt datasets/thermal-crops/msrs datasets/visible-identities \
        --infrared datasets/thermal-frames/infrared --run runs/baseline-real

Rows: the visible crop itself and each translation of it. Columns: "windows" of the translator's held-out frames, and
"pairs" of people: each translated visible crop is the query for its true infrared crop, which is mirrored and each side
cut by 0–12 %, because aligned pairs can be matched by their outline. "identities": each translated crop of a held-out
person is the query for the same person's visible crops from other cameras, two crops per person and camera. The network
is tf_efficientnet_lite0 as trained on ImageNet, or that of a run.
"""

from __future__ import annotations

import argparse
import json
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import replace
from itertools import chain
from pathlib import Path
from tempfile import TemporaryDirectory

from models.card import Modality
from models.registry import build
from training.data.cache import CropCache
from training.data.dataset import PlainCrops
from training.data.folder import read_folder, read_pairs
from training.data.person_crops import Windows, cut_windows
from training.data.records import Record, split_identities
from training.data.translator import Translator
from training.evaluation.embedder import Embed, embed_crops, network_embedder
from training.evaluation.embeddings import Embeddings
from training.evaluation.exclusion import Exclusion
from training.evaluation.metrics import evaluate
from training.evaluation.model_loader import load_model
from training.translation.channel import ChannelTranslation
from training.translation.learning import TranslatorConfig
from training.translation.learnt import LearntTranslation
from training.translation.network import load_network
from training.translation.statistics import StatisticsTranslation, load_infrared_images

SIZE = (128, 64)


class Side:
    """The crops of one side of a search, decoded once."""

    def __init__(self, records: Sequence[Record], cache: Path) -> None:
        self.records = list(records)
        self.crops = CropCache.open(self.records, cache, SIZE, "bilinear")

    def embed(self, embed: Embed, translator: Translator | None = None, *, misaligned: bool = False) -> Embeddings:
        """Embed the crops; translated crops use the infrared stem."""
        records = self.records
        if translator:
            records = [replace(record, modality=Modality.INFRARED, translated=True) for record in records]
        crops = PlainCrops(records, self.crops, misaligned=misaligned, translator=translator)
        return Embeddings.of(embed_crops(embed, crops), records)


def held_out_windows(translator: Path, folder: Path) -> list[Record]:
    """Write aligned windows of a translator's held-out frames below ``folder``, and return them."""
    config = TranslatorConfig.model_validate(load_network(translator)[1])
    for number, frames in enumerate(config.frames):
        windows = Windows(config.per_frame, people=(frames / "label").is_dir(), crops=1, jitter=0, size=SIZE)
        cut_windows(frames, folder / str(number), windows, config.seed, config.evaluates_on)
    return list(chain.from_iterable(read_folder(folder / str(number)) for number in range(len(config.frames))))


def held_out_crops(identities: Path) -> list[Record]:
    """Return the tenth of the people that a run holds out for validation, two crops per person and camera."""
    seen: dict[tuple[str, str], list[Record]] = defaultdict(list)
    for record in split_identities(read_folder(identities, Modality.VISIBLE), 0.1, seed=0)[1]:
        seen[record.identity, record.camera].append(record)
    return [record for records in seen.values() for record in records[:2]]


def search_metrics(query: Embeddings, gallery: Embeddings, exclusion: Exclusion = Exclusion.NONE) -> dict[str, float]:
    """Return Rank-1 and mAP with counts and chance level."""
    metrics = evaluate(query, gallery, exclusion)
    rates = {name: round(metrics.values()[name], 4) for name in ("rank1", "map", "chance_rank1")}
    return rates | {"queries": metrics.valid_queries, "gallery": metrics.gallery}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("translator", type=Path)
    parser.add_argument("pairs", type=Path)
    parser.add_argument("identities", type=Path)
    parser.add_argument("--infrared", type=Path, required=True, help="real infrared images, for their statistics")
    parser.add_argument("--run", type=Path, help="embed with this run's network")
    arguments = parser.parse_args()
    references = load_infrared_images(arguments.infrared)
    translators: dict[str, Translator | None] = {
        "none": None,
        "channel": ChannelTranslation(),
        "statistics, moments": StatisticsTranslation(references, "moments"),
        "statistics, amplitude": StatisticsTranslation(references, "amplitude"),
        "learnt": LearntTranslation(arguments.translator, gamma=(1, 1)),
    }
    if arguments.run:
        embed = load_model(arguments.run).embed
    else:
        embed = network_embedder(build("baseline", "tf_efficientnet_lite0", 2, "imagenet").eval())
    rows: dict[str, dict[str, dict[str, float]]] = {name: {} for name in translators}
    with TemporaryDirectory() as folder:
        cache = Path(folder, "cache")
        people = Side(held_out_crops(arguments.identities), cache)
        seen = people.embed(embed)
        aligned = {
            "windows": held_out_windows(arguments.translator, Path(folder)),
            "pairs": read_pairs(arguments.pairs),
        }
        for column, records in aligned.items():
            visible, infrared = (Side([r for r in records if r.modality is kind], cache) for kind in Modality)
            true = infrared.embed(embed, misaligned=True)
            for name, translator in translators.items():
                rows[name][column] = search_metrics(visible.embed(embed, translator), true)
        for name, translator in translators.items():
            rows[name]["identities"] = search_metrics(people.embed(embed, translator), seen, Exclusion.SAME_ID_SAME_CAM)
    network = str(arguments.run) if arguments.run else "tf_efficientnet_lite0, ImageNet, untrained"
    print(json.dumps({"translator": str(arguments.translator), "network": network, "rows": rows}, indent=2))


if __name__ == "__main__":
    main()
