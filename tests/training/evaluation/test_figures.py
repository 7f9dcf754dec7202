from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from matplotlib.figure import Figure
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor, nn

from models.baseline import Output
from models.card import Modality
from models.registry import build
from tests.drawing import draw_person
from tests.training.evaluation.oracle import exact_scores, random_case
from training.evaluation.embeddings import Embeddings
from training.evaluation.exclusion import Exclusion
from training.evaluation.figures.curves import draw_curves, read_log
from training.evaluation.figures.embedding_map import draw_embedding_map, project
from training.evaluation.figures.heatmap import attention, draw_heatmaps
from training.evaluation.figures.histograms import count_by_modality, draw_histograms
from training.evaluation.figures.ranklist import Shown, draw_ranklist, find_hits, lay_out


def pixels_of(figure: Figure, path: Path) -> NDArray[np.uint8]:
    figure.savefig(path, dpi=80)
    with Image.open(path) as image:
        return np.asarray(image.convert("RGB"))


def people(count: int, seed: int = 0) -> Embeddings:
    """Both modalities of five people."""
    rng = np.random.default_rng(seed)
    who = np.arange(count) % 5
    vectors = np.random.default_rng(1).standard_normal((5, 12))[who] + 0.4 * rng.standard_normal((count, 12))
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    modalities = np.arange(count) // 5 % 2
    return Embeddings(vectors.astype(np.float32), who.astype(np.str_), np.full(count, "1"), modalities)


@pytest.mark.parametrize("exclusion", Exclusion)
def test_hits_are_those_of_a_sorted_list(exclusion: Exclusion) -> None:
    for seed in range(60):
        query, gallery = random_case(seed)
        scores = exact_scores(query, gallery)
        for q, hits in enumerate(find_hits(query, gallery, 4, exclusion)):
            own = query.identities[q], query.cameras[q]
            kept = [
                g
                for g in range(len(gallery))
                if not (exclusion is Exclusion.CAM3_CAM2 and (own[1], gallery.cameras[g]) == ("cam3", "cam2"))
                and not (exclusion is Exclusion.SAME_ID_SAME_CAM and own == (gallery.identities[g], gallery.cameras[g]))
            ]
            expected = sorted(kept, key=lambda g: (-scores[q][g], g))[:4]
            assert [hit.row for hit in hits] == expected
            assert [hit.score for hit in hits] == [np.float32(scores[q][g]) for g in expected]
            assert [hit.correct for hit in hits] == [gallery.identities[g] == own[0] for g in expected]


def test_a_rank_list_marks_correct_hits_green_and_wrong_ones_red(tmp_path: Path) -> None:
    image = draw_person(1, Modality.INFRARED)
    right = [Shown(image, "query"), Shown(image, "right", correct=True)]
    wrong = [Shown(image, "query"), Shown(image, "wrong", correct=False)]
    for row, channel in ((right, 1), (wrong, 0)):
        colours = pixels_of(draw_ranklist([row]), tmp_path / "list.png").astype(int)
        strong = colours[..., channel] - np.delete(colours, channel, axis=2).max(axis=2)
        assert (strong > 40).sum() > 100
        assert ((colours[..., 1 - channel] - np.delete(colours, 1 - channel, axis=2).max(axis=2)) > 40).sum() == 0


def test_a_rank_list_shows_identity_and_camera_of_each_hit() -> None:
    embeddings = people(20)
    hits = find_hits(embeddings.take(slice(0, 2)), embeddings, 3)
    image = draw_person(1, Modality.VISIBLE, size=(8, 4))
    rows = lay_out(embeddings.take(slice(0, 2)), embeddings, hits, lambda row: image + row, lambda row: image - row)
    assert [len(row) for row in rows] == [4, 4]
    assert rows[1][0].text == "1\nvisible c1"
    assert rows[1][0].correct is None
    best = rows[1][1]  # the gallery holds the query itself
    assert best.text == "1\nvisible c1\n1.000"
    assert best.correct
    assert np.array_equal(rows[1][0].image, image + 1)
    assert np.array_equal(best.image, image - 1)


def test_rank_lists_of_different_lengths_are_drawn(tmp_path: Path) -> None:
    image = draw_person(1, Modality.VISIBLE)
    lines = [[Shown(image, "query")], [Shown(image, "query"), *[Shown(image, "hit", correct=True)] * 3]]
    assert pixels_of(draw_ranklist(lines), tmp_path / "list.png").size
    with pytest.raises(ValueError, match="found none"):
        draw_ranklist([])


class Spot(nn.Module):
    """A network whose embedding is the mean of each colour channel, from maps of a quarter of the size."""

    class Pool(nn.Module):
        def forward(self, maps: Tensor) -> Tensor:
            return maps.mean((2, 3))

    def __init__(self) -> None:
        super().__init__()
        self.pool = self.Pool()

    def forward(self, image: Tensor, modality: Tensor) -> Output:
        pooled = self.pool(nn.functional.avg_pool2d(image.permute(0, 3, 1, 2).float() / 255, 4))
        return Output(pooled, pooled, pooled)


def test_attention_is_high_where_the_similarity_comes_from() -> None:
    image = torch.zeros(1, 32, 16, 3, dtype=torch.uint8)
    image[0, 4:8, 12:16, 0] = 255  # red, upper right
    image[0, 24:28, 0:4, 1] = 200  # green, lower left
    modality = torch.zeros(1, dtype=torch.int64)
    for target, (top, left) in (([1.0, 0, 0], (4, 12)), ([0, 1.0, 0], (24, 0))):
        found = attention(Spot(), image, modality, torch.tensor([target]))[0]
        assert found.shape == (32, 16)
        row, column = np.unravel_index(found.argmax(), found.shape)
        assert top <= row < top + 4
        assert left <= column < left + 4
        assert found.max() == 1.0
    assert not attention(Spot(), image, modality, torch.tensor([[0, 0, 1.0]])).any()


def test_attention_to_a_target_ignores_negative_contributions() -> None:
    image = torch.zeros(1, 32, 16, 3, dtype=torch.uint8)
    image[0, :16, :, 0] = 255
    image[0, 16:, :, 1] = 255
    found = attention(Spot(), image, torch.zeros(1, dtype=torch.int64), torch.tensor([[0.7, -0.7, 0]]))[0]
    assert found[:12].min() == pytest.approx(1)
    assert found[20:].max() == 0.0


def test_attention_restores_the_network_and_does_not_mix_images(tmp_path: Path) -> None:
    network = build("baseline", "efficientnet_lite0", 3).train()
    for parameter in network.parameters():
        parameter.requires_grad_(False)
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    images = [draw_person(i, m, size=(64, 32)) for m in Modality for i in range(2)]
    modality = torch.tensor([0, 0, 1, 1])
    together = attention(network, torch.from_numpy(np.stack(images)), modality)
    assert network.training
    assert all(torch.equal(tensor, before[name]) for name, tensor in network.state_dict().items())
    single = attention(network, torch.from_numpy(images[3])[None], modality[3:])
    np.testing.assert_allclose(together[3:], single, atol=1e-3)
    rows = [[(images[i], together[i], modality) for i in rows] for modality, rows in (("v", (0, 1)), ("r", (2, 3)))]
    assert pixels_of(draw_heatmaps(rows), tmp_path / "heat.png").size


def test_an_embedding_map_is_repeatable_and_keeps_people_together(tmp_path: Path) -> None:
    embeddings = people(60)
    points = project(embeddings, seed=3)
    assert np.array_equal(project(embeddings, seed=3), points)
    distance = np.linalg.norm(points[:, None] - points[None], axis=2) + np.diag(np.full(60, np.inf))
    assert (embeddings.identities[distance.argmin(axis=1)] == embeddings.identities).mean() > 0.9
    assert pixels_of(draw_embedding_map(embeddings, points), tmp_path / "map.png").std() > 10
    with pytest.raises(ValueError, match="four"):
        project(embeddings.take(slice(0, 3)))


def test_histograms_count_every_pair_of_different_images(tmp_path: Path) -> None:
    embeddings = people(40)
    counts = count_by_modality(embeddings)
    assert [tuple(pair) for pair in counts] == [
        ("visible", "visible"),
        ("visible", "infrared"),
        ("infrared", "infrared"),
    ]
    edges = np.linspace(-1, 1, 17)
    for (one, other), pairs in counts.items():
        genuine: list[float] = []
        impostor: list[float] = []
        for a in np.flatnonzero(embeddings.modalities == one.index):
            for b in np.flatnonzero(embeddings.modalities == other.index):
                if a < b or (one is not other and a != b):
                    score = float(embeddings.vectors[a].astype(np.float64) @ embeddings.vectors[b])
                    (genuine if embeddings.identities[a] == embeddings.identities[b] else impostor).append(score)
        for scores, expected in ((pairs.genuine, genuine), (pairs.impostor, impostor)):
            assert scores.total == len(expected)
            assert scores.histogram(edges).tolist() == np.histogram(expected, edges)[0].tolist()
    assert pixels_of(draw_histograms(counts), tmp_path / "histogram.png").std() > 10


def test_histograms_of_one_modality_are_drawn(tmp_path: Path) -> None:
    embeddings = people(5)
    assert pixels_of(draw_histograms(count_by_modality(embeddings)), tmp_path / "histogram.png").size


def test_curves_are_drawn_from_the_logs_of_a_run(tmp_path: Path) -> None:
    (tmp_path / "training.csv").write_text("epoch,step,loss,phase\n1,10,3.5,warm\n2,20,,main\n3,30,1.25,main\n")
    (tmp_path / "validation.csv").write_text("epoch,a/visible_to_infrared/map,a/infrared_to_visible/map\n3,0.5,0.4\n")
    logs = {name: read_log(tmp_path / f"{name}.csv") for name in ("training", "validation")}
    assert set(logs["training"]) == {"epoch", "step", "loss"}
    np.testing.assert_array_equal(logs["training"]["loss"], [3.5, np.nan, 1.25])
    figure = draw_curves(logs)
    drawn = {axes.get_title(): len(axes.lines) for axes in figure.axes if axes.get_title()}
    assert drawn == {"training: loss": 1, "validation: map": 2}
    assert pixels_of(figure, tmp_path / "curves.png").std() > 5


def test_a_log_without_epochs_is_rejected(tmp_path: Path) -> None:
    (tmp_path / "empty.csv").write_text("epoch,loss\n")
    (tmp_path / "other.csv").write_text("a,b\n1,2\n")
    for name in ("empty", "other"):
        with pytest.raises(ValueError, match=f"{name}.csv"):
            read_log(tmp_path / f"{name}.csv")
    with pytest.raises(ValueError, match="other than epoch"):
        draw_curves({"training": {"epoch": np.array([1.0])}})
