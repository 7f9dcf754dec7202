"""The training loop for every method, in one or several processes, from the start or resumed."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from contextlib import ExitStack, nullcontext
from copy import deepcopy
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml
from rich.console import Console
from torch import Tensor
from torch.nn.parallel import DistributedDataParallel
from torch.nn.utils import clip_grad_norm_
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from models.baseline import Baseline
from models.registry import build
from training.checkpoint import config_differences, start_from
from training.config import TrainingConfig
from training.data.augmentation import Role, Stream
from training.data.cache import CropCache
from training.data.dataset import Batch, TrainingCrops, batches
from training.data.sampler import BalancedSampler, Draw
from training.data.training_data import TrainingData
from training.distributed import Process, first_process_first, join_processes, replicate, synchronise
from training.environment import Environment
from training.evaluation.validation import Measure, check_validation, measure, selection_score, validate
from training.files import save_state
from training.methods import build_method
from training.optimisation import build_optimiser, learning_rate_factor, set_learning_rate
from training.run_log import RunLog, show_progress

__all__ = ["NonFiniteLossError", "train"]

CHECKPOINT, RESULT = "last.pt", "model.pt"
_HALF = {"fp32": None, "bf16": torch.bfloat16, "fp16": torch.float16}


class NonFiniteLossError(RuntimeError):
    """A loss became infinite or NaN; further training would destroy the weights."""

    def __init__(self, epoch: int, step: int, terms: dict[str, float], files: list[Path]) -> None:
        super().__init__(f"loss not finite in epoch {epoch}, step {step}: {terms}; batch: {', '.join(map(str, files))}")
        self.epoch, self.step, self.terms, self.files = epoch, step, terms, files


def train(
    config: TrainingConfig,
    out: Path,
    *,
    resume: bool = False,
    cache: Path | None = None,
    command: str = "",
    measure: Measure = measure,
    console: Console | None = None,
) -> Path:
    """Train a network and return its file (``OUT/model.pt``, for ``checkpoint.load_trained``).

    The folder ``out`` also gets ``config.yaml``, the checkpoint ``last.pt``, ``training.csv``, ``validation.csv`` and
    ``tensorboard/``. With torchrun, every process calls this with the same arguments and only the first one writes. All
    random numbers depend on the configuration's seed, so a resumed run ends like an uninterrupted one, bit for bit on a
    CPU with the same number of threads; the state of the global generators is restored.

    Args:
        resume: continue from ``last.pt``, or start if it does not exist.
        cache: folder for decoded crops, shared between runs; ``cache`` beside ``out`` by default.
        command: command line, stored with the network.
        measure: function that computes the metrics of held-out identities.
        console: where progress is shown; standard error by default.

    Raises:
        FileExistsError: ``out`` contains a run and ``resume`` is off.
        NonFiniteLossError: a loss became infinite or NaN.
        ValueError: data or configuration are invalid or differ from those of the run in ``out``; the message says how.
        OSError: data or ``out`` cannot be read or written.
    """
    if not resume and (out / CHECKPOINT).exists():
        raise FileExistsError(f"{out} contains a run: resume it, or choose another folder")
    with ExitStack() as stack:
        process = stack.enter_context(join_processes())
        gpus = [process.device] if process.device.type == "cuda" else []
        stack.enter_context(torch.random.fork_rng(gpus))
        out.mkdir(parents=True, exist_ok=True)
        console = console or Console(stderr=True, quiet=not process.is_first)
        run = _Run(config, out, process, cache or out.parent / "cache", command, measure, console)
        if (out / CHECKPOINT).exists():
            run.load(out / CHECKPOINT)
        run.go()
    return out / RESULT


class _Batches(BalancedSampler):
    """Batches of an epoch from index ``first`` on, to resume an interrupted epoch."""

    first = 0

    def __iter__(self) -> Iterator[list[Draw]]:
        return islice(super().__iter__(), self.first, None)


class _Run:
    """A run and its position: ``epoch`` epochs and ``step`` batches of the next one are complete."""

    def __init__(
        self,
        config: TrainingConfig,
        out: Path,
        process: Process,
        cache: Path,
        command: str,
        measure: Measure,
        console: Console,
    ) -> None:
        self.config, self.out, self.process, self.command = config, out, process, command
        self.environment = Environment.here(str(process.device), config.precision)
        self.measure, self.console = measure, console
        self.data = config.read_data()
        self.sampler = _build_sampler(config, self.data, process)
        check_validation(self.data.held_out)
        self._report_skipped()
        self.cache = first_process_first(process, lambda: _open_cache(config, self.data, cache, console))
        self.steps = len(self.sampler)
        self.augmentation = config.augmentation.build()
        self.method = build_method(config.method, config.options)
        if missing := sorted(self.method.streams - set(config.batch.streams)):
            raise ValueError(f"{config.method} needs the streams {missing} in batch.streams")
        torch.manual_seed(config.seed)
        weights = None if config.weights == "none" else config.weights
        network = build(config.method, config.backbone, self.data.classes, weights, **self.method.structure())
        if config.start:
            start_from(network, config.start)
        self.network = synchronise(network.to(process.device).to(memory_format=torch.channels_last), process)
        self.replica = replicate(self.network, process)
        self.start = deepcopy(self.network).eval().requires_grad_(False) if self.method.needs_targets else None
        self.optimiser = build_optimiser(config.optimiser, self.network)
        self.scaler = torch.amp.GradScaler(process.device.type, enabled=config.precision == "fp16")
        self.average = _average(self.network, config.ema) if config.ema else None
        self.epoch = self.step = 0
        self.sums: dict[str, float] = {}
        self.best = -math.inf
        self.start_score: float | None = None
        self.metrics: dict[str, float] = {}

    # --- training

    def go(self) -> None:
        """Train from the current position to the end."""
        crops = TrainingCrops(
            self.data.train,
            self.cache,
            self.data.labels,
            seed=self.config.seed,
            augmentation=self.augmentation,
            visible_streams=[s for s in self.config.batch.streams if s is not Stream.INFRARED],
        )
        loader = batches(
            crops,
            self.sampler,
            workers=self.config.workers,
            pin_memory=self.process.device.type == "cuda",
        )
        with ExitStack() as stack:
            log = None
            if self.process.is_first:
                self._describe()
                log = RunLog(self.out, self.epoch)
                stack.callback(log.close)
            if self.epoch == self.step == 0:
                self._validate(log)
                self.start_score = selection_score(self.metrics) if self.metrics else None
            while self.epoch < self.config.epochs:
                self.metrics = {}
                self._train_epoch(loader, log)
                self.epoch, self.step, self.sums = self.epoch + 1, 0, {}
                if self.epoch % self.config.validation.every == 0 or self.epoch == self.config.epochs:
                    self._validate(log)
                self._write(finished=True)
            if log:
                self._warn_below_start()

    def _train_epoch(self, loader: Any, log: RunLog | None) -> None:
        config, started, saved = self.config, time.monotonic(), time.monotonic()
        self.network.train()
        self.sampler.set_epoch(self.epoch)
        self.sampler.first = self.step
        images = 0
        with show_progress(self.console, f"epoch {self.epoch + 1}/{config.epochs}") as show:
            for batch in loader:
                self._train_batch(batch.to(self.process.device))
                images += len(batch) * self.process.world_size
                speed = images / (time.monotonic() - started)
                shown = {name: total / self.step for name, total in self.sums.items()}
                rate = self.optimiser.param_groups[-1]["lr"]
                text = "  ".join(f"{name} {value:.3f}" for name, value in shown.items())
                show(self.step, self.steps, f"{text}  lr {rate:.2g}  {speed:.0f} images/s")
                between_groups = self.step % config.accumulation == 0 and self.step < self.steps
                if between_groups and time.monotonic() - saved > 60 * config.checkpoint_minutes:
                    self._write(finished=False)
                    saved = time.monotonic()
        if log:
            log.write("training", self.epoch + 1, shown | {"learning_rate": rate, "images_per_second": speed})

    def _train_batch(self, batch: Batch) -> None:
        """Accumulate the gradients of the batch; step the optimiser at the end of its accumulation group."""
        config = self.config
        group = self.step - self.step % config.accumulation
        group_size = min(config.accumulation, self.steps - group)
        last = self.step + 1 == group + group_size
        self._seed()
        with nullcontext() if last else self._without_exchange():
            half = _HALF[config.precision]
            with torch.autocast(self.process.device.type, half, enabled=half is not None):
                output = self.replica(batch.images, self.method.stems(batch))
                batch = self._with_targets(batch)
            terms = self.method(output, batch)
            weights = self.method.weights(self.epoch + self.step / self.steps)
            total = torch.stack([weights.get(name, 1.0) * term for name, term in terms.items()]).sum()
            self._record({"loss": total, **terms})
            torch.autograd.backward(self.scaler.scale(total / group_size))
        self.step += 1
        if last:
            self._step_optimiser()

    @torch.no_grad()
    def _with_targets(self, batch: Batch) -> Batch:
        """Add the embeddings of the initial network for the visible crops of classified identities."""
        if self.start is None:
            return batch
        rows = (batch.roles == Role.VISIBLE) & (batch.identities < self.data.classes)
        targets = torch.zeros(len(batch), self.start.dimension, device=batch.images.device)
        targets[rows] = self.start.embed(batch.images[rows], batch.modalities[rows]).float()
        return replace(batch, targets=targets)

    def _step_optimiser(self) -> None:
        config = self.config
        done = self.epoch * self.steps + self.step - 1
        set_learning_rate(self.optimiser, learning_rate_factor(config.schedule, done, self.steps, config.epochs))
        if config.clip:
            self.scaler.unscale_(self.optimiser)
            clip_grad_norm_(self.network.parameters(), config.clip)
        self.scaler.step(self.optimiser)
        self.scaler.update()
        self.optimiser.zero_grad(set_to_none=True)
        if self.average:
            self.average.update_parameters(self.network)

    def _seed(self) -> None:
        """Seed torch for this batch (dropout), so that no generator state has to be stored."""
        place = (self.config.seed, self.epoch, self.step, self.process.rank)
        torch.manual_seed(int(np.random.SeedSequence(place).generate_state(1, np.uint64)[0]))

    def _without_exchange(self) -> Any:
        """Return a context without exchange of gradients, which follows with the last batch of the group."""
        return self.replica.no_sync() if isinstance(self.replica, DistributedDataParallel) else nullcontext()

    def _record(self, terms: dict[str, Tensor]) -> None:
        values = torch.stack([term.detach() for term in terms.values()]).tolist()  # a single device synchronisation
        named = dict(zip(terms, values, strict=True))
        if not all(map(math.isfinite, values)):
            self.sampler.first = self.step
            draws = next(iter(self.sampler))
            files = sorted({self.data.train[draw.row].path for draw in draws})
            raise NonFiniteLossError(self.epoch + 1, self.step + 1, named, files)
        self.sums = {name: self.sums.get(name, 0.0) + value for name, value in named.items()}

    # --- validation and writing, in the first process

    @property
    def _released(self) -> Baseline:
        """The network that is validated and released: the averaged one, if averaging is on."""
        network = self.average.module if self.average else self.network
        assert isinstance(network, Baseline)  # noqa: S101 - build() returns one
        return network

    def _validate(self, log: RunLog | None) -> None:
        if log is None or not self.data.held_out:
            return
        self.metrics = validate(
            self._released, self.data.held_out, self.cache, self.augmentation.translator, self.measure
        )
        log.write("validation", self.epoch, self.metrics)
        shown = {name: value for name, value in self.metrics.items() if name.endswith(("/rank1", "/map"))}
        self.console.print(
            f"validation after {self.epoch} epochs: " + ", ".join(f"{k} {v:.3f}" for k, v in shown.items()),
            highlight=False,
            soft_wrap=True,
        )

    def _warn_below_start(self) -> None:
        """Warn if the released network is worse on the validation identities than its initial weights."""
        released = self.best if self.config.validation.select == "best" else selection_score(self.metrics or {})
        if self.start_score is not None and released < self.start_score:
            self.console.print(
                f"warning: the released network is worse than its initial weights on the validation identities (mean "
                f"mAP {released:.3f}, initially {self.start_score:.3f}): use the initial weights, train longer, lower "
                "the learning rate or raise retention_weight",
                style="bold red",
                highlight=False,
                soft_wrap=True,
            )

    def _write(self, *, finished: bool) -> None:
        """Write the checkpoint and, at the end of an epoch, the network if it is selected for release."""
        if not self.process.is_first:
            return
        metadata = {
            "config": self.config.model_dump(mode="json"),
            "labels": self.data.labels,
            "held_out": sorted({r.identity for part in self.data.held_out for r in part.records}),
            "sources": [source.model_dump() for source in self.data.sources],
            "epoch": self.epoch,
            "metrics": self.metrics,
            "command": self.command,
            "environment": self.environment.model_dump(),
        }
        if finished:
            score = selection_score(self.metrics) if self.metrics else -math.inf
            if self.config.validation.select == "last" or score > self.best:
                save_state(self.out / RESULT, metadata | {"network": self._released.state_dict()})
            self.best = max(self.best, score)
        state = {
            "network": self.network.state_dict(),
            "optimiser": self.optimiser.state_dict(),
            "scaler": self.scaler.state_dict(),
            "average": self.average.state_dict() if self.average else None,
            "sampler": self.sampler.state_dict(),
            "step": self.step,
            "sums": self.sums,
            "best": self.best,
            "start_score": self.start_score,
            "data": self.data.fingerprint,
            "world_size": self.process.world_size,
        }
        save_state(self.out / CHECKPOINT, metadata | state)

    def load(self, path: Path) -> None:
        """Restore the position and state of an interrupted run.

        Raises:
            ValueError: its configuration, data or number of processes differ.
        """
        state = torch.load(path, map_location=self.process.device, weights_only=True)
        differences = config_differences(state["config"], self.config)
        if state["data"] != self.data.fingerprint:
            differences.append("the files of the data sets differ")
        if state["world_size"] != self.process.world_size:
            differences.append(f"processes: {state['world_size']} before, {self.process.world_size} now")
        if differences:
            raise ValueError(f"{path} cannot be resumed: {'; '.join(differences)}")
        self.network.load_state_dict(state["network"])
        self.optimiser.load_state_dict(state["optimiser"])
        self.scaler.load_state_dict(state["scaler"])
        if self.average:
            self.average.load_state_dict(state["average"])
        self.sampler.load_state_dict(state["sampler"])
        self.epoch, self.step, self.sums = state["epoch"], state["step"], state["sums"]
        self.best, self.metrics, self.start_score = state["best"], state["metrics"], state["start_score"]

    def _report_skipped(self) -> None:
        lines = [*self.data.skipped]
        if self.sampler.skipped:
            lines.append(
                f"ignored {len(self.sampler.skipped)} identities with one modality (batch.skip_single_modality)"
            )
        for line in lines:
            self.console.print(f"warning: {line}", highlight=False, soft_wrap=True, markup=False)

    def _describe(self) -> None:
        text = yaml.safe_dump(self.config.model_dump(mode="json"), sort_keys=False)
        (self.out / "config.yaml").write_text(text, "utf-8")
        self.console.print(
            f"{self.config.method} on {self.config.backbone}: {len(self.data.train)} crops of "
            f"{len(self.data.labels)} identities, {self.steps} batches per epoch, on {self.process.device}",
            highlight=False,
            soft_wrap=True,
        )


def _average(network: Baseline, decay: float) -> AveragedModel:
    update = get_ema_multi_avg_fn(decay)
    return AveragedModel(network, multi_avg_fn=update, use_buffers=True)


def _open_cache(config: TrainingConfig, data: TrainingData, folder: Path, console: Console) -> CropCache:
    records = [*data.train, *(record for part in data.held_out for record in part.records)]
    size = (config.input.height, config.input.width)
    with show_progress(console, "decoding crops") as show:
        return CropCache.open(records, folder, size, config.input.resize, show)


def _build_sampler(config: TrainingConfig, data: TrainingData, process: Process) -> _Batches:
    return _Batches(
        data.train,
        config.batch.identities,
        config.batch.images,
        seed=config.seed,
        rank=process.rank,
        world_size=process.world_size,
        skip_single_modality=config.batch.skip_single_modality,
        pools=data.pools,
        neighbours=config.batch.neighbours,
        per_epoch=config.batch.per_epoch,
    )
