"""Choice of protocols and evaluation from the command line to the figures."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from models.card import Modality
from tests.drawing import draw_person, write_people
from tests.training import synthetic_datasets as synthetic
from tests.training.trainer_toys import run_on_people, toy_config
from training.data.records import Record
from training.data.sources import LLCM, Folder, SysuMM01
from training.evaluation.evaluator import evaluation_set, grey_sets, held_out_sets, open_crops
from training.evaluation.exclusion import Exclusion, usual_exclusion
from training.evaluation.model_loader import load_model
from training.evaluation.result import read_results
from training.translation.channel import LUMA
from vireid.cli import app


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return run_on_people(tmp_path_factory.mktemp("evaluated"))


def vireid(*words: str, code: int = 0) -> str:
    done = CliRunner().invoke(app, words)
    assert done.exit_code == code, done.output
    return done.output


def test_a_published_data_set_has_usual_protocols_and_accepts_its_presets(tmp_path: Path) -> None:
    synthetic.write_sysu_mm01(tmp_path / "sysu", draw_person)
    source = SysuMM01(kind="sysu_mm01", root=tmp_path / "sysu", identities=296)
    usual = evaluation_set(source)
    assert [p.id for p in usual.protocols] == [
        "sysu-all-1shot-official_perm-train296",
        "sysu-indoor-1shot-official_perm-train296",
    ]
    chosen = evaluation_set(source, presets=["sysu-all-10shot-official_perm", "sysu-indoor-1shot-agw_seed"])
    assert [(p.shots, p.gallery_sampler, p.train_ids) for p in chosen.protocols] == [
        (10, "official_perm", 296),
        (1, "agw_seed", 296),
    ]
    assert chosen.records == usual.records


def test_the_error_for_a_preset_of_another_data_set_lists_the_valid_ones(tmp_path: Path) -> None:
    synthetic.write_llcm(tmp_path / "llcm", draw_person)
    with pytest.raises(ValueError, match="llcm-vis_to_ir-deen_release"):
        evaluation_set(LLCM(kind="llcm", root=tmp_path / "llcm"), presets=["sysu-all-1shot-agw_seed"])


def test_without_cameras_nothing_is_excluded(tmp_path: Path) -> None:
    write_people(tmp_path, range(3), images=1)
    source = Folder(kind="folder", root=tmp_path, name="people", camera_pattern=r"nothing(\d)")
    assert {protocol.exclusion.value for protocol in evaluation_set(source).protocols} == {"none"}


@pytest.mark.parametrize(
    ("cameras", "translated", "rule"),
    [
        (("1", "2"), False, "same_id_same_cam"),
        (("0", "0"), False, "none"),
        (("0", "0"), True, "same_id_same_cam"),
        (("1", "2"), True, "same_id_same_cam"),
    ],
)
def test_the_usual_exclusion_depends_on_cameras_and_translations(
    cameras: tuple[str, str], translated: bool, rule: str
) -> None:
    visible = Record(Path("a.png"), "a", cameras[0], Modality.VISIBLE)
    infrared = Record(Path("b.png"), "a", cameras[1], Modality.INFRARED, translated)
    assert usual_exclusion([visible, infrared]) == rule


def test_evaluation_and_validation_use_the_same_exclusion(tmp_path: Path) -> None:
    write_people(tmp_path, range(6), images=1, modalities=[Modality.VISIBLE])
    source = {"root": tmp_path / "visible", "modality": "visible", "translate": "channel", "camera_pattern": r"no(\d)"}
    data = [{"kind": "folder", "name": "v"} | source]
    config = toy_config(tmp_path, method="baseline", data=data, validation={"share": 0.5})
    evaluated = evaluation_set(config.data[0]), *held_out_sets(config)
    assert [p.exclusion for data in evaluated for p in data.protocols] == [Exclusion.SAME_ID_SAME_CAM] * 4


def test_people_of_two_cameras_with_translated_infrared_are_searched_in_grey_too(tmp_path: Path, run: Path) -> None:
    write_people(tmp_path, range(6), images=2, modalities=[Modality.VISIBLE])
    source = {"root": tmp_path / "visible", "modality": "visible", "translate": "channel"}
    data = [{"kind": "folder", "name": "v"} | source]
    config = toy_config(tmp_path, method="baseline", data=data, validation={"share": 0.5})
    (grey,) = grey_sets(config)
    assert [p.id for p in grey.protocols] == ["custom-vis_to_ir-same_id_same_cam"]
    assert grey.name == "v, held-out identities, grey"
    model = load_model(run)
    crops = open_crops(model, grey, tmp_path / "cache")
    for record, (image, modality) in zip(grey.records, crops, strict=True):
        assert modality == record.modality.index
        if record.translated:
            same = next(r for r in grey.records if r.path == record.path and not r.translated)
            visible, _ = crops[grey.records.index(same)]
            np.testing.assert_array_equal(image[..., 0], np.rint(visible @ np.array(LUMA)))
    assert not grey_sets(load_model(run).config)  # its infrared is not translated


def test_reranking_adds_a_separate_row(run: Path) -> None:
    vireid("evaluate", str(run), "--rerank", "--cache", str(run.parent / "cache"))
    found = read_results(run)
    assert sorted(result.flags.rerank is not None for result in found) == [False] * 3 + [True] * 3
    assert len({result.protocol_id for result in found}) == 6
    assert sum("vis_to_vis" in result.protocol_id for result in found) == 2


@pytest.mark.parametrize("command", ["ranklist", "heatmap", "embedding-map", "histograms", "curves"])
def test_every_figure_command_writes_its_file(run: Path, tmp_path: Path, command: str) -> None:
    cache = [] if command == "curves" else ["--cache", str(run.parent / "cache")]
    vireid(command, str(run), "--out", str(tmp_path / "image.png"), *cache)
    assert (tmp_path / "image.png").read_bytes().startswith(b"\x89PNG")


def test_the_error_for_a_wrong_data_set_is_one_line(run: Path) -> None:
    assert "expected KIND:PATH" in vireid("evaluate", str(run), "--on", "nonsense", code=2)
    assert "no such folder" in vireid("evaluate", str(run), "--on", "folder:missing", code=2)
    output = vireid("evaluate", str(run), "--misaligned", "--translate", code=2)
    assert "--translate, --misaligned: needs a data set" in output
