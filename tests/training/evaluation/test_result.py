from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from pydantic import ValidationError
from typer.testing import CliRunner
from typer.testing import Result as Invoked

from models.card import WORDING, Modality
from tests.drawing import draw_person
from tests.training.evaluation.virtual import VirtualRecord, drawn_permutation, sysu_records
from tests.training.synthetic_datasets import write_llcm, write_regdb, write_sysu_mm01
from training.data import llcm as llcm_reader
from training.data import regdb as regdb_reader
from training.data import sysu_mm01
from training.environment import Environment
from training.evaluation.embeddings import Embeddings, Labelled
from training.evaluation.metrics import evaluate
from training.evaluation.protocol import (
    CROSS_MODALITY,
    Convention,
    Direction,
    Mode,
    Protocol,
    ProtocolError,
    llcm,
    regdb,
    sysu,
)
from training.evaluation.rerank import KReciprocal
from training.evaluation.result import (
    Data,
    Flags,
    ModelInfo,
    Preprocessing,
    Result,
    data_fingerprint,
    join_trials,
    needs_wording,
    read_results,
    update_results,
)
from training.evaluation.run import measure_open_set, run
from training.evaluation.sampling import trials
from training.evaluation.table import latex, markdown
from vireid.cli import app

PEOPLE = [3, 4, 8, 9]
PERMUTATION = drawn_permutation(seed=1, identities=PEOPLE)
RECORDS = sysu_records(PERMUTATION, PEOPLE)


def unit_vectors(records: list[Labelled], seed: int = 0) -> np.ndarray[tuple[int, int], np.dtype[np.float32]]:
    rng = np.random.default_rng(seed)
    centres = {identity: rng.standard_normal(16) for identity in sorted({r.identity for r in records})}
    vectors = np.stack([centres[r.identity] + 1.5 * rng.standard_normal(16) for r in records])
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    return vectors.astype(np.float32)


def result_of(protocol: Protocol, *, name: str = "baseline", wording: str = "", seed: int = 0) -> Result:
    """A result measured on records of a data set that has the protocol's layout."""
    records = RECORDS if protocol.mode else labelled_pairs()
    vectors = unit_vectors(records, seed)
    mirrored = unit_vectors(records, seed + 1) if protocol.flip else None
    outcome = run(protocol, records, vectors, mirrored=mirrored, permutation=PERMUTATION)
    return Result.of(
        protocol,
        outcome,
        data=Data(name="drawn", sha256="0" * 64, identities=4, train_identities=None),
        model=ModelInfo(
            name=name,
            method="baseline",
            backbone="resnet50",
            parameters=1,
            dimension=16,
            checkpoints=(f"{seed:064x}",),
            epoch=3,
            wording=wording,
        ),
        training=None,
        preprocessing=Preprocessing(height=288, width=144, resize="lanczos", mean=(0.5,) * 3, std=(0.5,) * 3),
        environment=Environment.here("cpu", "fp32"),
        command="vireid evaluate",
        seconds=1.5,
    )


def labelled_pairs() -> list[Labelled]:
    """Six people, two images in each modality and of each camera."""
    return [
        VirtualRecord(Path(f"cam{camera}/{identity:04d}/{n:04d}.jpg"), f"{identity:04d}", str(camera), modality)
        for modality in Modality
        for identity in range(6)
        for camera in (1, 2)
        for n in range(2)
    ]


@pytest.mark.parametrize("mode", Mode)
def test_a_run_evaluates_every_trial(mode: Mode) -> None:
    protocol, vectors = sysu(mode), unit_vectors(RECORDS)
    images = Embeddings.of(vectors, RECORDS)
    outcome = run(protocol, RECORDS, vectors, permutation=PERMUTATION)
    assert len(outcome.metrics) == 10
    for trial, metrics, counts in zip(
        trials(protocol, RECORDS, PERMUTATION), outcome.metrics, outcome.counts, strict=True
    ):
        assert metrics == evaluate(images.take(trial.query), images.take(trial.gallery), protocol.exclusion)
        assert sum(counts.queries_of_camera.values()) == counts.queries == len(trial.query)
        assert sum(counts.gallery_of_camera.values()) == counts.gallery == len(trial.gallery)
        assert set(counts.gallery_of_camera) <= set("1245" if mode is Mode.ALL else "12")


def test_mirrored_vectors_are_required_only_for_the_flip_test() -> None:
    vectors, mirrored = unit_vectors(RECORDS), unit_vectors(RECORDS, seed=2)
    with pytest.raises(ProtocolError, match="if and only if"):
        run(sysu().changed(flip=True), RECORDS, vectors, permutation=PERMUTATION)
    with pytest.raises(ProtocolError, match="if and only if"):
        run(sysu(), RECORDS, vectors, mirrored=mirrored, permutation=PERMUTATION)
    flipped = sysu().changed(flip=True)
    one = run(flipped, RECORDS, vectors, mirrored=mirrored, permutation=PERMUTATION)
    other = run(flipped, RECORDS, mirrored, mirrored=vectors, permutation=PERMUTATION)
    assert one.metrics == other.metrics


def test_vectors_normalised_as_a_whole_matrix_are_rejected() -> None:
    vectors = unit_vectors(RECORDS)
    with pytest.raises(ProtocolError, match="unit length"):
        run(sysu(), RECORDS, vectors / np.linalg.norm(vectors), permutation=PERMUTATION)


def test_reranking_is_applied_only_if_the_protocol_has_it() -> None:
    vectors = unit_vectors(RECORDS)
    plain = run(sysu(), RECORDS, vectors, permutation=PERMUTATION)
    again = run(sysu().changed(rerank=KReciprocal(k1=3, k2=2)), RECORDS, vectors, permutation=PERMUTATION)
    assert plain.metrics != again.metrics
    assert plain.counts == again.counts


def test_open_set_rates_are_measured_over_all_pairs_and_in_every_trial() -> None:
    found = measure_open_set(sysu(), RECORDS, unit_vectors(RECORDS), permutation=PERMUTATION)
    assert [verification.target_fmr for verification in found.verification] == [1e-2, 1e-3, 1e-4]
    visible = sum(record.modality is Modality.VISIBLE for record in RECORDS)
    excluded = sum(r.camera == "3" for r in RECORDS) * sum(r.camera == "2" for r in RECORDS)
    first = found.verification[0]
    assert first.genuine_pairs + first.impostor_pairs == visible * (len(RECORDS) - visible) - excluded
    assert [len(of_rate) for of_rate in found.identification] == [10, 10]


def test_a_result_is_read_as_written(tmp_path: Path) -> None:
    result = result_of(sysu().changed(flip=True, rerank=KReciprocal(k1=3)))
    result.write(tmp_path / "result.json")
    assert Result.read(tmp_path / "result.json") == result
    content = json.loads((tmp_path / "result.json").read_text())
    assert content["flags"] == {
        "flip": True,
        "rerank": "k_reciprocal_3_6_0.3_top1000",
        "ensemble": False,
        "swapped_roles": False,
    }
    assert content["environment"]["libraries"]["numpy"] == np.__version__


def test_mean_and_deviation_are_those_of_the_trials() -> None:
    for measure in result_of(sysu()).metrics.values():
        assert len(measure.trials) == 10
        assert measure.mean == pytest.approx(np.mean(measure.trials))
        assert measure.std == pytest.approx(np.std(measure.trials, ddof=1))
    assert result_of(regdb(Direction.VIS_TO_IR, 1)).metrics["map"].std is None


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda content: content.update(protocol_id="sysu-indoor"), "protocol_id"),
        (lambda content: content["flags"].update(rerank="k_reciprocal"), "flags"),
        (lambda content: content["metrics"]["map"]["trials"].pop(), "10 trials everywhere"),
        (lambda content: content.update(remark="best of five"), "remark"),
        (lambda content: content["model"].update(name="icre"), "wording"),
    ],
)
def test_an_inconsistent_result_file_is_rejected(change: Callable[[dict[str, object]], object], message: str) -> None:
    content = result_of(sysu()).model_dump(mode="json")
    change(content)
    with pytest.raises(ValidationError, match=message):
        Result.model_validate(content)


def test_ten_regdb_trials_are_joined_to_their_mean() -> None:
    parts = [result_of(regdb(Direction.VIS_TO_IR, trial), seed=trial) for trial in range(1, 11)]
    (joined,) = join_trials(reversed(parts), "agw")
    assert joined.model.name == "agw"
    assert joined.protocol == regdb(Direction.VIS_TO_IR)
    assert joined.metrics["map"].trials == tuple(part.metrics["map"].mean for part in parts)
    assert joined.model.checkpoints == tuple(part.model.checkpoints[0] for part in parts)
    assert Result.model_validate(joined.model_dump()) == joined
    (some,) = join_trials(parts[:3], "agw")
    assert some.protocol_id == "regdb-vis_to_ir-trial1+2+3"
    (named,) = join_trials(parts[:1], "icre")
    assert Result.model_validate(named.model_dump()) == named  # with the wording that such a name needs


def test_protocols_are_joined_separately() -> None:
    protocols = [
        regdb(direction, trial).changed(flip=f)
        for direction in CROSS_MODALITY
        for trial in (1, 2)
        for f in (False, True)
    ]
    joined = join_trials([result_of(protocol, name=f"run{n}") for n, protocol in enumerate(protocols)], "agw")
    assert [result.protocol_id for result in joined] == [
        "regdb-ir_to_vis-trial1+2",
        "regdb-ir_to_vis-trial1+2-flip",
        "regdb-vis_to_ir-trial1+2",
        "regdb-vis_to_ir-trial1+2-flip",
    ]


def test_trials_that_do_not_belong_together_are_not_joined() -> None:
    first, second = (result_of(regdb(Direction.VIS_TO_IR, trial)) for trial in (1, 2))
    with pytest.raises(ProtocolError, match=r"resnet50, 288 x 144 in baseline and baseline, resnet18"):
        join_trials(
            [first, second.model_copy(update={"model": second.model.model_copy(update={"backbone": "resnet18"})})], "a"
        )
    with pytest.raises(ProtocolError, match=r"found trial 1 of drawn in baseline and in baseline"):
        join_trials([first, first], "a")
    with pytest.raises(ProtocolError, match="only RegDB"):
        join_trials([first, result_of(sysu())], "a")
    with pytest.raises(ProtocolError, match="none"):
        join_trials([], "a")


def test_the_command_prints_the_trials_as_one_row(tmp_path: Path) -> None:
    def table(*words: str) -> Invoked:
        return CliRunner().invoke(app, ["table", *files, *words])

    parts = [result_of(regdb(Direction.VIS_TO_IR, trial), name=f"run{trial}", seed=trial) for trial in range(1, 11)]
    files = [str(tmp_path / f"{part.model.name}.json") for part in parts]
    for part, file in zip(parts, files, strict=True):
        part.write(Path(file))
    assert table().exit_code == 2  # rows of ten protocols
    assert table("--join", "agw").output.strip() == markdown(join_trials(parts, "agw")).strip()
    result_of(sysu()).write(Path(files[0]))
    assert "only RegDB has a model for each trial" in table("--join", "agw").output


def test_the_card_gets_the_metrics_and_the_protocol() -> None:
    result = result_of(sysu())
    evaluation = result.for_card()
    assert Protocol.model_validate(evaluation.protocol) == sysu()
    assert evaluation.metrics == result.metrics
    assert evaluation.counts["queries"] == result.counts[0].queries


def test_a_table_mixes_protocols_only_on_request() -> None:
    rows = [result_of(sysu()), result_of(sysu().changed(flip=True))]
    for write in (markdown, latex):
        with pytest.raises(ProtocolError, match="sysu-all-1shot-official_perm-flip on drawn"):
            write(rows)
        assert write(rows, mixed=True)
    with pytest.raises(ProtocolError, match="none"):
        markdown([])


def test_a_table_does_not_mix_data_sets_by_default() -> None:
    one = result_of(sysu())
    other = one.model_copy(update={"data": one.data.model_copy(update={"name": "other"})})
    with pytest.raises(ProtocolError, match="on other"):
        markdown([one, other])


def test_a_table_shows_flip_reranking_convention_and_swapped_roles() -> None:
    rows = [
        result_of(sysu().changed(flip=True, rerank=KReciprocal(k1=3))),
        result_of(llcm(Direction.VIS_TO_IR, Convention.DEEN_RELEASE)),
    ]
    header, _, first, second = markdown(rows, mixed=True).strip().splitlines()
    table = [dict(zip(header.split(" | "), row.split(" | "), strict=True)) for row in (first, second)]
    assert [row["Flip"] for row in table] == ["yes", "no"]
    assert [row["Re-ranking"] for row in table] == ["k_reciprocal_3_6_0.3_top1000", "no"]
    assert [row["Convention"] for row in table] == ["–", "deen_release"]
    assert [row["Roles"] for row in table] == ["as named", "swapped"]
    measure = rows[0].metrics["map"]
    assert measure.std is not None
    assert table[0]["mAP"] == f"{100 * measure.mean:.2f} ± {100 * measure.std:.2f}"


def test_a_table_with_a_published_method_has_the_required_statement() -> None:
    ours, theirs = result_of(sysu()), result_of(sysu(), name="emi-lite", wording=WORDING)
    for write in (markdown, latex):
        assert WORDING not in write([ours])
        assert WORDING in write([ours, theirs])
    assert [needs_wording(name) for name in ("MTRL", "ICRE-style", "emission", "mtrl_full")] == [
        True,
        True,
        False,
        True,
    ]


def test_special_characters_are_escaped_in_latex() -> None:
    text = latex([result_of(sysu(), name="a_b & 50%")])
    assert r"a\_b \& 50\%" in text
    assert r"$\pm$" in text
    assert text.count(r"\\") == 2


def test_the_fingerprint_of_a_data_set_depends_on_names_and_sizes(tmp_path: Path) -> None:
    for name in ("b/2.png", "a/1.png"):
        (tmp_path / name).parent.mkdir()
        (tmp_path / name).write_bytes(b"12")
    files = sorted(tmp_path.rglob("*.png"))
    before = data_fingerprint(tmp_path, files)
    assert data_fingerprint(tmp_path, reversed(files)) == before
    files[0].write_bytes(b"123")
    assert data_fingerprint(tmp_path, files) != before


def test_flags_are_those_of_the_protocol() -> None:
    assert Flags.of(llcm(Direction.VIS_TO_IR, Convention.DEEN_RELEASE)).swapped_roles
    assert not Flags.of(llcm(Direction.IR_TO_VIS, Convention.DEEN_RELEASE)).swapped_roles


def test_the_synthetic_sysu_mm01_is_evaluated_from_its_folders(tmp_path: Path) -> None:
    write_sysu_mm01(tmp_path / "mini", draw_person)
    records: list[Labelled] = [
        record for modality in Modality for record in sysu_mm01.evaluation_records(tmp_path / "mini", modality)
    ]
    permutation = sysu_mm01.permutation(tmp_path / "mini" / "exp" / "rand_perm_cam.mat")
    people = {r.identity for r in records}
    for mode, shots in ((Mode.ALL, 1), (Mode.ALL, 10), (Mode.INDOOR, 1), (Mode.INDOOR, 10)):
        protocol = sysu(mode, 10 if shots == 10 else 1)
        outcome = run(protocol, records, unit_vectors(records), permutation=permutation)
        cameras = "1245" if mode is Mode.ALL else "12"
        cells = {(r.identity, r.camera) for r in records if r.camera in cameras}
        assert {counts.gallery for counts in outcome.counts} == {shots * len(cells)}
        assert {counts.gallery_identities for counts in outcome.counts} == {len({i for i, _ in cells})}
        valid = sum(r.modality is Modality.INFRARED for r in records if mode is Mode.ALL or (r.identity, "1") in cells)
        assert {counts.valid_queries for counts in outcome.counts} == {valid}
    assert len(people) == 4


@pytest.mark.parametrize("direction", CROSS_MODALITY)
def test_the_synthetic_regdb_and_llcm_are_evaluated_from_their_folders(direction: Direction, tmp_path: Path) -> None:
    write_regdb(tmp_path / "regdb", draw_person)
    write_llcm(tmp_path / "llcm", draw_person)
    split: list[Labelled] = [r for m in Modality for r in regdb_reader.evaluation_records(tmp_path / "regdb", 3, m)]
    counts = run(regdb(direction, 3), split, unit_vectors(split)).counts[0]
    assert (counts.queries, counts.valid_queries, counts.gallery) == (9, 9, 9)

    test: list[Labelled] = [r for m in Modality for r in llcm_reader.evaluation_records(tmp_path / "llcm", m)]
    cells = {m: {(r.identity, r.camera) for r in test if r.modality is m} for m in Modality}
    for convention in Convention:
        protocol = llcm(direction, convention)
        outcome = run(protocol, test, unit_vectors(test))
        everyone = protocol.swapped or convention is Convention.IDKL_FULL
        side = direction.query if protocol.swapped else direction.gallery
        gallery = sum(r.modality is side for r in test) if everyone else len(cells[side])
        assert {counts.gallery for counts in outcome.counts} == {gallery}


def test_results_of_a_run_are_in_one_file_and_replaced_by_newer_ones(tmp_path: Path) -> None:
    assert read_results(tmp_path) == []
    first, other = result_of(sysu(), seed=1), result_of(sysu().changed(flip=True))
    update_results(tmp_path, [first, other])
    again = result_of(sysu(), seed=2)
    assert again != first
    update_results(tmp_path, [again])
    assert read_results(tmp_path) == read_results(tmp_path / "results.json") == [again, other]
    again.write(tmp_path / "one.json")
    assert read_results(tmp_path / "one.json") == [again]
