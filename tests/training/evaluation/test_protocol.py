from __future__ import annotations

import itertools
import json

import pytest
from pydantic import ValidationError

from models.card import Modality
from training.evaluation.exclusion import Exclusion
from training.evaluation.metrics import Cmc
from training.evaluation.protocol import (
    Convention,
    Dataset,
    Direction,
    Feature,
    Mode,
    Protocol,
    ProtocolError,
    Sampler,
    Selection,
    check_training,
    custom,
    llcm,
    presets,
    regdb,
    sysu,
)
from training.evaluation.rerank import KReciprocal

LLCM = llcm(Direction.VIS_TO_IR)


def legal_combinations() -> list[Protocol]:
    """Return every valid protocol over the fields with few values, by trying all combinations."""
    combinations = itertools.product(
        Dataset,
        Direction,
        (None, *Mode),
        (None, 1, 10),
        ((0,), (1,), tuple(range(10)), tuple(range(1, 11))),
        Sampler,
        (None, *Convention),
        Exclusion,
        Cmc,
        (None, 1, 296, 395),
    )
    names = [*list(Protocol.model_fields)[:9], "train_ids"]
    legal = []
    for values in combinations:
        try:
            legal.append(Protocol.model_validate(dict(zip(names, values, strict=True))))
        except ValidationError:
            continue
    return legal


def test_ids_are_unique_over_all_legal_combinations_and_their_variants() -> None:
    legal = {*legal_combinations(), *presets().values()}
    variants = {
        protocol.changed(**change)
        for protocol in legal
        for change in (
            {},
            {"flip": True},
            {"feature": Feature.POOLED},
            {"max_rank": 50},
            {"rerank": KReciprocal()},
            {"rerank": KReciprocal(k1=4)},
            {"rerank": KReciprocal(k1=4), "flip": True},
            {"selection": Selection.VAL} if protocol.train_ids != 395 else {},
        )
    }
    assert len(legal) > 60
    assert len({protocol.id for protocol in variants}) == len(variants) > 7 * len(legal)


def test_equal_protocols_have_equal_ids_and_hashes() -> None:
    assert sysu() == sysu()
    assert hash(sysu()) == hash(sysu())
    assert sysu().id == sysu().id == "sysu-all-1shot-official_perm"
    assert regdb(Direction.VIS_TO_IR, 3).id == "regdb-vis_to_ir-trial3"
    assert LLCM.id == "llcm-vis_to_ir-paper"
    reranked = sysu(Mode.INDOOR, 10).changed(flip=True, rerank=KReciprocal())
    assert reranked.id == "sysu-indoor-10shot-official_perm-flip-k_reciprocal_20_6_0.3_top1000"


@pytest.mark.parametrize("protocol", presets().values(), ids=lambda protocol: protocol.id)
def test_every_preset_is_preserved_in_json(protocol: Protocol) -> None:
    flipped = protocol.changed(flip=True, rerank=KReciprocal(k1=4, k2=1))
    for one in (protocol, flipped):
        assert Protocol.model_validate_json(one.model_dump_json()) == one
        assert Protocol.model_validate(json.loads(one.model_dump_json())) == one


@pytest.mark.parametrize(
    ("protocol", "changes", "named"),
    [
        (sysu(), {"direction": Direction.VIS_TO_IR}, "direction"),
        (sysu(), {"mode": None}, "mode"),
        (sysu(), {"shots": 5}, "shots"),
        (sysu(), {"shots": 10, "gallery_sampler": Sampler.AGW_SEED}, "gallery_sampler"),
        (sysu(), {"gallery_sampler": Sampler.FULL}, "gallery_sampler"),
        (sysu(), {"convention": Convention.PAPER}, "convention"),
        (sysu(), {"exclusion": Exclusion.NONE}, "exclusion"),
        (sysu(), {"cmc": Cmc.IMAGE}, "cmc"),
        (sysu(), {"trials": (0, 10)}, "trials"),
        (sysu(), {"trials": (1, 0)}, "trials"),
        (sysu(), {"trials": (1, 1)}, "trials"),
        (sysu(), {"trials": ()}, "trials"),
        (sysu(), {"train_ids": None}, "train_ids"),
        (sysu(), {"selection": Selection.VAL}, "train_ids"),
        (sysu(), {"flip": "False"}, "flip"),
        (sysu(), {"max_rank": 0}, "max_rank"),
        (sysu(), {"rerank": True}, "rerank"),
        (sysu(), {"tta": True}, "tta"),
        (regdb(Direction.VIS_TO_IR, 2), {"trials": (0,)}, "trials"),
        (regdb(Direction.VIS_TO_IR, 2), {"trials": (3,)}, "train_ids"),
        (regdb(Direction.VIS_TO_IR, 2), {"mode": Mode.ALL}, "mode"),
        (regdb(Direction.VIS_TO_IR, 2), {"exclusion": Exclusion.CAM3_CAM2}, "exclusion"),
        (LLCM, {"convention": None}, "convention"),
        (LLCM, {"convention": Convention.IDKL_FULL, "trials": (0,)}, "shots"),
        (LLCM, {"exclusion": Exclusion.NONE}, "exclusion"),
        (LLCM, {"shots": 10}, "shots"),
        (custom(Direction.VIS_TO_IR), {"exclusion": Exclusion.CAM3_CAM2}, "exclusion"),
        (custom(Direction.VIS_TO_IR), {"train_ids": 395}, "train_ids"),
        (custom(Direction.VIS_TO_IR), {"trials": (1,)}, "trials"),
    ],
)
def test_an_impossible_combination_is_rejected_by_name(
    protocol: Protocol, changes: dict[str, object], named: str
) -> None:
    with pytest.raises(ValidationError, match=named):
        protocol.changed(**changes)


def test_a_protocol_cannot_be_changed_in_place() -> None:
    with pytest.raises(ValidationError, match="frozen"):
        sysu().flip = True  # type: ignore[misc]


def test_defaults_are_the_usual_choices() -> None:
    for protocol in presets().values():
        assert not protocol.flip
        assert protocol.rerank is None
        assert protocol.selection is Selection.LAST
        assert protocol.feature is Feature.BN


def test_directions_name_the_modality_of_query_and_gallery() -> None:
    assert (Direction.IR_TO_VIS.query, Direction.IR_TO_VIS.gallery) == (Modality.INFRARED, Modality.VISIBLE)
    assert (Direction.VIS_TO_IR.query, Direction.VIS_TO_IR.gallery) == (Modality.VISIBLE, Modality.INFRARED)


def test_only_deen_release_from_visible_to_infrared_swaps_the_roles() -> None:
    swapped = [protocol.id for protocol in presets().values() if protocol.swapped]
    assert swapped == ["llcm-vis_to_ir-deen_release"]


def test_a_regdb_model_of_another_split_is_rejected() -> None:
    protocol = regdb(Direction.IR_TO_VIS, 4)
    check_training(protocol, 4)
    for other in (1, None):
        with pytest.raises(ProtocolError, match=f"split 4, found split {other}"):
            check_training(protocol, other)


def test_a_sysu_model_trained_on_other_identities_is_rejected() -> None:
    check_training(sysu(train_ids=296), 296)
    with pytest.raises(ProtocolError, match="395 identities, found 296"):
        check_training(sysu(), 296)
