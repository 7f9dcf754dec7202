"""Training configurations: clear errors and overrides of every key."""

from __future__ import annotations

from pathlib import Path

import pytest
from pydantic import ValidationError

import training
from training.config import TrainingConfig, find_config, read_config
from training.data.sources import Folder
from training.optimisation import AdamW, Sgd

CONFIGS = sorted(
    path
    for path in (Path(training.__file__).parent / "configs").glob("*/*.yaml")
    if path.stem != "ablation"  # a plan, not a configuration
)

MINIMAL = """
data:
  - {kind: folder, root: crops, name: own}
"""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "config.yaml"
    path.write_text(MINIMAL, "utf-8")
    return path


def test_there_is_a_configuration_for_every_data_set() -> None:
    names = {path.stem for path in CONFIGS if path.parent.name == "baseline"}
    assert names >= {"light", "sysu_mm01", "regdb", "llcm"}


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: f"{path.parent.name}/{path.stem}")
def test_a_packaged_configuration_is_valid_and_read_as_written(path: Path) -> None:
    config = read_config(path)
    assert config.method == path.parent.name
    assert TrainingConfig.model_validate_json(config.model_dump_json()) == config
    assert TrainingConfig.model_validate(config.model_dump(mode="json")) == config


def test_the_full_size_recipe_has_the_usual_values() -> None:
    config = read_config(next(path for path in CONFIGS if path.stem == "sysu_mm01"))
    assert (config.input.height, config.input.width) == (288, 144)
    assert (config.batch.identities, config.batch.images, len(config.batch.streams)) == (8, 4, 3)
    assert config.optimiser == Sgd(learning_rate=0.1, pretrained_factor=0.1, weight_decay=5e-4, momentum=0.9)
    assert config.epochs == 81
    assert config.validation.select == "last"


@pytest.mark.parametrize("override", ["leraning_rate=1", "optimiser.momentun=0.5", "data.0.rot=x", "batch.identites=3"])
def test_an_unknown_key_is_an_error_that_names_it(file: Path, override: str) -> None:
    with pytest.raises(ValidationError, match=override.partition("=")[0].rpartition(".")[2]):
        read_config(file, [override])


def test_an_unknown_key_in_the_file_is_an_error_that_names_it(file: Path) -> None:
    file.write_text(MINIMAL + "epoch: 3\n", "utf-8")
    with pytest.raises(ValidationError, match=r"unknown key 'epoch', did you mean 'epochs'"):
        read_config(file)


@pytest.mark.parametrize(("text", "value"), [("true", True), ("false", False), ("True", True), ("no", False)])
def test_booleans_can_be_switched_on_and_off(file: Path, text: str, value: bool) -> None:
    config = read_config(file, [f"batch.skip_single_modality={text}"])
    assert config.batch.skip_single_modality is value


def test_overrides_are_yaml_values_at_dotted_keys(file: Path) -> None:
    config = read_config(
        file,
        [
            "optimiser={kind: adamw}",
            "optimiser.learning_rate=1e-3",
            "schedule.milestones=[5, 9]",
            "clip=5",
            "ema=null",
            "data.0.root=/elsewhere/a=b",
            "data.0.translate=channel",
        ],
    )
    assert config.optimiser == AdamW(learning_rate=1e-3)
    assert config.schedule.model_dump()["milestones"] == (5, 9)
    assert config.clip == 5
    assert config.ema is None
    source = config.data[0]
    assert isinstance(source, Folder)
    assert (source.root, source.translate) == (Path("/elsewhere/a=b"), "channel")


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("epochs", "expected key=value"),
        ("=3", "expected key=value"),
        ("data.1.root=x", "index below 1"),
        ("data.first.root=x", "index below 1"),
        ("data.0.root.more=x", "data.0.root is a single value"),
        ("epochs=[1", "not YAML"),
        ("epochs=0", "epochs"),
        ("epochs=3", "schedule.warmup_epochs is 10: expected fewer than epochs, 3"),
        ("schedule.milestones=[50, 20]", "must rise"),
        ("optimiser=3", "optimiser"),
        ("validation={share: 0, select: best}", "needs validation identities"),
        ("data=[]", "data"),
        ("data.0.camera_pattern=_c", "has no group"),
        ("data.0.group_pattern=(", "is not a regular expression"),
        ("optimiser.kind=adam", "adamw"),
        ("precision=half", "precision"),
        ("ema=1", "ema"),
        ("clip=.inf", "clip"),
        ("batch.streams=[visible, thermal]", "streams"),
    ],
)
def test_the_error_for_an_invalid_override_says_why(file: Path, override: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        read_config(file, [override])


@pytest.mark.parametrize("text", ["a: [", "- 1", "3"])
def test_a_file_that_is_not_a_mapping_is_rejected(file: Path, text: str) -> None:
    file.write_text(text, "utf-8")
    with pytest.raises(ValueError, match=r"not YAML|expected a mapping"):
        read_config(file)


def test_a_configuration_cannot_be_changed(file: Path) -> None:
    config = read_config(file)
    with pytest.raises(ValidationError, match="frozen"):
        setattr(config, "epochs", 3)  # noqa: B010 - mypy knows that it is read-only


def test_a_configuration_extends_another(tmp_path: Path, file: Path) -> None:
    file.write_text(MINIMAL + "optimiser: {kind: adamw, learning_rate: 1.0}\nbatch: {streams: [infrared]}\n", "utf-8")
    other = tmp_path / "other.yaml"
    other.write_text(f"extends: {file}\noptimiser: {{learning_rate: 2.0}}\nbatch: {{streams: [visible]}}\n", "utf-8")
    config = read_config(other, ["optimiser.weight_decay=0.5"])
    assert config.optimiser == AdamW(learning_rate=2.0, weight_decay=0.5)
    assert [stream.value for stream in config.batch.streams] == ["visible"]
    assert config.data == read_config(file).data
    third = tmp_path / "third.yaml"
    third.write_text(f"extends: {other}\nepochs: 11\n", "utf-8")
    assert read_config(third, ["optimiser.weight_decay=0.5"]) == config.model_copy(update={"epochs": 11})
    third.write_text("extends: nowhere/nothing\n", "utf-8")
    with pytest.raises(FileNotFoundError):
        read_config(third)


def test_an_extension_changes_entries_of_a_list_by_their_index(tmp_path: Path, file: Path) -> None:
    other = tmp_path / "other.yaml"
    other.write_text(f"extends: {file}\ndata: {{0: {{name: renamed}}}}\n", "utf-8")
    assert read_config(other).data == (read_config(file).data[0].model_copy(update={"name": "renamed"}),)
    other.write_text(f"extends: {file}\ndata: {{1: {{name: renamed}}}}\n", "utf-8")
    with pytest.raises(ValueError, match=r"other\.yaml: expected indices below 1, found \['1'\]"):
        read_config(other)


@pytest.mark.parametrize("kind", ["folder", "manifest"])
def test_the_former_name_of_translate_is_still_accepted(kind: str) -> None:
    source = {"kind": kind, "root": "x", "name": "x", "imitate": "channel"}
    data = TrainingConfig.model_validate({"data": [source]}).data[0]
    assert data.model_dump()["translate"] == "channel"
    assert "imitate" not in data.model_dump()


def test_the_error_for_an_unknown_key_suggests_the_closest_and_lists_all(file: Path) -> None:
    file.write_text(MINIMAL + "batch: {identites: 4}\n", "utf-8")
    message = r"(?s)batch.*'identites', did you mean 'identities'\? expected one of.*streams"
    with pytest.raises(ValidationError, match=message):
        read_config(file)


def test_the_error_for_an_unknown_configuration_suggests_the_closest_and_lists_all() -> None:
    with pytest.raises(FileNotFoundError, match=r"'baseline/ligth', did you mean 'baseline/light'\?.*emi/light"):
        find_config("baseline/ligth")
