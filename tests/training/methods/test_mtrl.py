"""MTRL: its terms, the effect of its options, and training of all parts."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from models.baseline import Output
from models.card import Modality
from models.registry import build
from tests.drawing import draw_person
from training.data.augmentation import Augmentation, Role, Stream
from training.data.dataset import Batch, View, collate
from training.losses import CentreAlignment, QueryConsistency, TransitionContrast, TransitionMargin
from training.methods import build_method
from training.methods.mtrl import Mtrl, MtrlOptions
from training.translation.channel import ChannelTranslation

STREAMS = (Stream.VISIBLE, Stream.TRANSITION)


def drawn(
    identities: int = 2,
    images: int = 1,
    streams: tuple[Stream, ...] = STREAMS,
    augmentation: Augmentation | None = None,
) -> Batch:
    """A batch of drawn people, 96 x 48."""
    rng = np.random.default_rng(0)
    augmentation = augmentation or Augmentation(translator=ChannelTranslation(), transition=ChannelTranslation())
    draws = []
    for identity in range(identities):
        for number in range(images):
            place = identity * images + number
            visible = draw_person(identity, Modality.VISIBLE, seed=number, size=(96, 48))
            infrared = draw_person(identity, Modality.INFRARED, seed=number, size=(96, 48))
            geometry = augmentation.draw_geometry(visible.shape, rng)
            views = [(visible, stream) for stream in streams] + [(infrared, Stream.INFRARED)]
            draws.append([View(augmentation.view(image, s, geometry, rng), identity, s, place) for image, s in views])
    return collate(draws)


def features(batch: Batch, seed: int = 0) -> Output:
    generator = torch.Generator().manual_seed(seed)
    pooled = torch.randn(len(batch), 12, generator=generator)
    return Output(pooled, pooled, torch.randn(len(batch), 9, generator=generator))


def test_the_terms_are_the_losses_on_the_pooled_features() -> None:
    batch = drawn(3, 2)
    output = features(batch)
    terms = Mtrl(MtrlOptions())(output, batch)
    labels = (batch.identities, batch.roles)
    assert list(terms) == ["id", "wrt", "mtc", "centre", "mqr"]
    assert torch.equal(terms["mtc"], TransitionContrast(0.1)(output.pooled, *labels))
    assert torch.equal(terms["centre"], CentreAlignment()(output.pooled, *labels))
    assert torch.equal(terms["mqr"], QueryConsistency(0.1)(output.pooled, *labels, batch.pairs))
    baseline = build_method("baseline", {})(output, batch)
    assert torch.equal(terms["id"], baseline["id"])
    assert torch.equal(terms["wrt"], baseline["wrt"])


def test_an_option_changes_the_term_it_names() -> None:
    batch = drawn(3, 2)
    output = features(batch)
    plain = Mtrl(MtrlOptions())(output, batch)
    for options, changed in (
        (MtrlOptions(mtc="margin"), "mtc"),
        (MtrlOptions(mtc="direct"), "mtc"),
        (MtrlOptions(temperature=0.2), "mtc"),
        (MtrlOptions(query_temperature=0.2), "mqr"),
        (MtrlOptions(centre_hinge=True, margin=1.5), "centre"),
    ):
        terms = Mtrl(options)(output, batch)
        assert [name for name in terms if not torch.equal(terms[name], plain[name])] == [changed]
    margin = Mtrl(MtrlOptions(mtc="margin", margin=0.7))(output, batch)["mtc"]
    assert torch.equal(margin, TransitionMargin(0.7)(output.pooled, batch.identities, batch.roles, batch.pairs))


def test_the_weights_rise_over_the_first_epochs_with_the_fraction_of_the_epoch() -> None:
    method = Mtrl(MtrlOptions(mtc_weight=1, centre_weight=0.5, mqr_weight=0.2, ramp_epochs=10))
    assert method.weights(0) == {"mtc": 0, "centre": 0, "mqr": 0}
    assert method.weights(2.5) == pytest.approx({"mtc": 0.25, "centre": 0.125, "mqr": 0.05})
    assert method.weights(10) == method.weights(80) == {"mtc": 1, "centre": 0.5, "mqr": 0.2}


@pytest.mark.parametrize("stem", Modality)
def test_a_transition_goes_through_the_stem_its_option_names(stem: Modality) -> None:
    batch = drawn(2, 1, (Stream.VISIBLE, Stream.EXCHANGED, Stream.TRANSITION))
    stems = Mtrl(MtrlOptions(stem_for_t=stem)).stems(batch)
    assert stems.dtype == torch.int64
    assert (stems[batch.roles == Role.TRANSITION] == stem.index).all()
    assert (stems[batch.roles == Role.VISIBLE] == Modality.VISIBLE.index).all()
    assert (stems[batch.roles == Role.INFRARED] == Modality.INFRARED.index).all()


def test_the_queries_agree_when_a_transition_is_its_source_in_the_same_stem() -> None:
    """No erasing, no translation, the visible stem: v and t are one image, so one ranking."""
    same = Augmentation(erasing=0, transition=lambda image, rng: image.copy())
    batch = drawn(3, 2, augmentation=same)
    for stem, agrees in ((Modality.VISIBLE, True), (Modality.INFRARED, False)):
        method = Mtrl(MtrlOptions(stem_for_t=stem))
        torch.manual_seed(0)
        network = build("mtrl", "efficientnet_lite0", 3).train()
        with torch.no_grad():  # stems that differ, as after some training
            for parameter in network.trunk.stems["infrared"].parameters():
                parameter.add_(0.2 * torch.randn_like(parameter))
            output = network(batch.images, method.stems(batch))
        visible = output.pooled[batch.roles == Role.VISIBLE]
        transition = output.pooled[batch.roles == Role.TRANSITION]
        assert torch.allclose(visible, transition, rtol=1e-4, atol=1e-5) is agrees
        strangers = torch.where(batch.roles == Role.TRANSITION, batch.identities + 100, batch.identities)
        first_term = QueryConsistency()(output.pooled, strangers, batch.roles, batch.pairs)  # the second has no teacher
        assert (first_term.item() < 1e-6) is agrees


@pytest.mark.parametrize(("backbone", "keep_v_prime"), [("resnet18", False), ("efficientnet_lite0", True)])
def test_every_parameter_is_updated_within_two_steps(backbone: str, keep_v_prime: bool) -> None:
    streams = (*STREAMS, Stream.EXCHANGED) if keep_v_prime else STREAMS
    method, batch = Mtrl(MtrlOptions(ramp_epochs=0)), drawn(2, 1, streams)
    torch.manual_seed(0)
    network = build("mtrl", backbone, 2).train()
    optimiser = torch.optim.SGD(network.parameters(), lr=0.01)
    learnt = set()
    for _ in range(2):
        optimiser.zero_grad()
        with torch.autocast("cpu", torch.bfloat16, enabled=keep_v_prime):
            output = network(batch.images, method.stems(batch))
        terms, weights = method(output, batch), method.weights(0)
        torch.stack([weights.get(name, 1.0) * term for name, term in terms.items()]).sum().backward()
        for name, parameter in network.named_parameters():
            if parameter.grad is not None:
                assert parameter.grad.isfinite().all(), name
                learnt |= {name} if parameter.grad.any() else set()
        optimiser.step()
    assert learnt == {name for name, parameter in network.named_parameters() if parameter.requires_grad}


def test_every_packaged_configuration_has_the_transition_stream() -> None:
    from training.config import CONFIGS, read_config

    paths = [path for path in (Path(CONFIGS) / "mtrl").glob("*.yaml") if path.stem != "ablation"]
    assert {path.stem for path in paths} == {"light", "osnet", "study", "zoo", "sysu_mm01", "regdb", "llcm"}
    for path in paths:
        config = read_config(path)
        assert build_method(config.method, config.options).streams <= set(config.batch.streams)
