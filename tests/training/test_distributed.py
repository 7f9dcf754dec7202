"""Training in two CPU processes equals training in one with the joint batch."""

from __future__ import annotations

import multiprocessing
import os
import socket
import warnings
from collections.abc import Callable
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import models.registry
import training.methods
from models.registry import build
from tests.drawing import write_people
from tests.training.methods.test_mtrl import drawn
from tests.training.trainer_toys import SIZE, Toy, drawn_batches, joined, run, toy_config
from training.checkpoint import load_trained
from training.data.dataset import Batch
from training.distributed import Process, gather, join_processes, replicate, synchronise
from training.losses import CrossEntropy, Loss, Triplet, WeightedTriplet
from training.methods import Method, build_method
from training.methods.baseline import Baseline as BaselineMethod

WORLD = 2
LOSSES: dict[str, Loss] = {"triplet": Triplet(), "weighted": WeightedTriplet(), "identity": CrossEntropy()}

ROWS: dict[str, tuple[str, dict[str, Any]]] = {
    "baseline, contrast": ("baseline", {"contrast_weight": 1}),
    "mtrl": ("mtrl", {"ramp_epochs": 0, "centre_hinge": True, "margin": 1.5}),
    "mtrl, margin": ("mtrl", {"ramp_epochs": 0, "mtc": "margin", "level": "embedding"}),
    "icre": ("icre", {"grid": [6, 3], "shallow_triplet_weight": 1, "distillation_weight": 0.1}),
    "emi": ("emi", {"ramp_epochs": 0}),
    "emi, last stage": ("emi", {"ramp_epochs": 0, "branch": "last_stage", "consistency": "class_conditional"}),
}
"""A method and its options: together every loss of the three methods that gathers."""


def register() -> None:
    models.registry.METHODS["toy-together"] = Toy
    training.methods.METHODS["toy-together"] = BaselineMethod


def joint_batch() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    rows = torch.randn(16, 6, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    return rows, torch.arange(4).repeat(4), torch.arange(2).repeat(8)


def linear() -> nn.Linear:
    layer = nn.Linear(6, 5, bias=False).double()
    nn.init.normal_(layer.weight, generator=torch.Generator().manual_seed(1))
    return layer


def compare_losses(out: Path) -> None:
    """Value and gradient of each loss, of this process's share of the joint batch; gathered where pairs matter."""
    with join_processes() as process:
        share = slice(process.rank * 8, process.rank * 8 + 8)
        for name, loss in LOSSES.items():
            layer = linear()
            rows, identities, modalities = (part[share] for part in joint_batch())
            replica = replicate(layer, process)
            parts = (replica(rows), identities, modalities)
            value = loss(*(map(gather, parts) if name != "identity" else parts))
            value.backward()
            torch.save((value.detach(), layer.weight.grad), out / f"{name}-{process.rank}.pt")


def people() -> Batch:
    """Four drawn people, two images of each in three streams: 24 rows, those of two people in each half."""
    return drawn(4, 2)


def network_of(name: str) -> tuple[nn.Module, Method]:
    """In evaluation mode: batch norms on the CPU have the statistics of their own process."""
    method_name, options = ROWS[name]
    method = build_method(method_name, options)
    torch.manual_seed(0)
    network = build(method_name, "test_resnet", 4, **method.structure()).eval()
    with torch.no_grad():  # zero weights would hide the gradients of later layers
        for parameter in network.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
    return network, method


def learn(network: nn.Module, method: Method, batch: Batch) -> dict[str, torch.Tensor]:
    """The terms, after their weighted sum has left its gradients in the network."""
    terms = method(network(batch.images, method.stems(batch)), batch)
    weights = method.weights(0)
    torch.stack([weights.get(name, 1.0) * term for name, term in terms.items()]).sum().backward()
    return {name: term.detach() for name, term in terms.items()}


def gradients(network: nn.Module) -> dict[str, torch.Tensor]:
    return {name: p.grad for name, p in network.named_parameters() if p.grad is not None}


def compare_methods(out: Path) -> None:
    """Terms and gradients of each method, of this process's half of the people."""
    with join_processes() as process:
        rows = slice(process.rank * 12, process.rank * 12 + 12)
        batch = people()
        values = (getattr(batch, field.name) for field in fields(batch))
        share = Batch(*(None if value is None else value[rows] for value in values))
        for name in ROWS:
            network, method = network_of(name)
            terms = learn(replicate(network, process), method, share)
            torch.save((terms, gradients(network)), out / f"{name}-{process.rank}.pt")


def train_together(out: Path) -> None:
    register()
    run(toy_config(out / "people", **TOGETHER), out / "run", cache=out / "cache")


TOGETHER: dict[str, Any] = {
    "method": "toy-together",
    "batch": {"identities": 2, "images": 2},
    "epochs": 2,
    "accumulation": 2,
}


def _child(work: Callable[[Path], None], out: Path, environment: dict[str, str]) -> None:
    os.environ.update(environment)
    torch.set_num_threads(1)
    warnings.simplefilter("error")
    work(out)


def together(work: Callable[[Path], None], out: Path) -> None:
    """Do the work in two processes, with the environment that torchrun gives them."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    context = multiprocessing.get_context("forkserver")  # imports once
    context.set_forkserver_preload([__name__])
    started = []
    for rank in range(WORLD):
        environment = {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(WORLD)}
        environment |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
        started.append(context.Process(target=_child, args=(work, out, environment)))
    for process in started:
        process.start()
    for process in started:
        process.join(120)
    assert [process.exitcode for process in started] == [0] * WORLD


def test_gathered_losses_and_their_gradients_are_those_of_the_joint_batch(tmp_path: Path) -> None:
    together(compare_losses, tmp_path)
    for name, loss in LOSSES.items():
        layer = linear()
        rows, identities, modalities = joint_batch()
        expected = loss(layer(rows), identities, modalities)
        expected.backward()
        found = [torch.load(tmp_path / f"{name}-{rank}.pt") for rank in range(WORLD)]
        torch.testing.assert_close(torch.stack([value for value, _ in found]).mean(), expected.detach())
        for _, gradient in found:
            torch.testing.assert_close(gradient, layer.weight.grad)


def test_terms_and_gradients_of_every_method_are_those_of_the_joint_batch(tmp_path: Path) -> None:
    together(compare_methods, tmp_path)
    for name in ROWS:
        network, method = network_of(name)
        expected = learn(network, method, people())
        found = [torch.load(tmp_path / f"{name}-{rank}.pt") for rank in range(WORLD)]
        for term, value in expected.items():
            mean = torch.stack([terms[term] for terms, _ in found]).mean()
            torch.testing.assert_close(mean, value)
        for _, of_process in found:
            assert of_process.keys() == gradients(network).keys(), name
            for parameter, gradient in gradients(network).items():
                torch.testing.assert_close(of_process[parameter], gradient, rtol=1e-4, atol=1e-5)
        assert all(value > 0 for value in expected.values()), name


def test_two_processes_train_the_same_network_as_one_with_the_joint_batch(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(models.registry.METHODS, "toy-together", Toy)
    monkeypatch.setitem(training.methods.METHODS, "toy-together", BaselineMethod)
    write_people(tmp_path / "people", range(6), images=4, size=SIZE)
    together(train_together, tmp_path)

    config = toy_config(tmp_path / "people", **TOGETHER)
    with torch.random.fork_rng():
        torch.manual_seed(config.seed)
        network = Toy("toy", 6)
    groups = [list(network.trunk.parameters()), list(network.classifier.parameters())]
    optimiser = torch.optim.SGD(
        [{"params": group, "lr": rate} for group, rate in zip(groups, (0.01, 0.1), strict=True)],
        momentum=0.9,
        nesterov=True,
        weight_decay=5e-4,
    )
    for steps in drawn_batches(config, tmp_path / "cache", WORLD):
        for start in range(0, len(steps), 2):
            optimiser.zero_grad()
            group = steps[start : start + 2]
            for ranks in group:
                batch = joined(ranks)
                output = network(batch.images, batch.modalities)
                labels = (batch.identities, batch.modalities)
                total = CrossEntropy()(output.logits, *labels) + WeightedTriplet()(output.pooled, *labels)
                (total / len(group)).backward()
            optimiser.step()

    trained = load_trained(tmp_path / "run" / "model.pt")
    for name, value in trained.network.state_dict().items():
        torch.testing.assert_close(value, network.state_dict()[name], rtol=1e-4, atol=1e-6)
    assert (tmp_path / "run" / "training.csv").read_text("utf-8").count("\n") == 3, "one process writes"


def test_a_single_process_gathers_and_replicates_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    rows, layer = torch.ones(2, 3), nn.Linear(3, 3)
    with join_processes() as process:
        assert (process.rank, process.world_size, process.is_first) == (0, 1, True)
        assert gather(rows) is rows
        assert replicate(layer, process) is layer
        assert synchronise(layer, process) is layer


@pytest.mark.parametrize("backbone", ["test_resnet", "efficientnet_lite0"])
def test_synchronised_norms_change_only_the_statistics(backbone: str) -> None:
    network = build("baseline", backbone, 4).eval()
    image = torch.randint(0, 256, (4, 64, 32, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    modality = torch.tensor([0, 1, 0, 1])
    with torch.no_grad():
        expected = network(image, modality)
        converted = synchronise(network, Process(0, 2, torch.device("cuda", 0)))
        found = converted(image, modality)
    norms = [m for m in converted.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)]
    assert all(isinstance(norm, nn.SyncBatchNorm) for norm in norms)
    torch.testing.assert_close(found.embedding, expected.embedding)
    assert not converted.neck.bias.requires_grad
    assert network.state_dict().keys() == converted.state_dict().keys()
