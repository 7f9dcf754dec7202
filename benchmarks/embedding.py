"""Embedding throughput and latency: bare session, batcher, HTTP, and comparable servers (LitServe, BentoML).

Figures with a limit are measured alternately, once per round; the processes that are not being measured are stopped
meanwhile. The load generator uses the same cores, which slows every server equally.
"""

from __future__ import annotations

import statistics
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any
from urllib.request import Request, urlopen

import numpy as np

from benchmarks.harness import peers
from benchmarks.harness.crops import Body, draw_crops, form, json_body
from benchmarks.harness.effort import BenchmarkResult, Effort, Row
from benchmarks.harness.models import LIGHT, file_of, precisions_of, resnet50
from benchmarks.harness.process import Process
from benchmarks.harness.server import serving
from benchmarks.harness.session import BATCHES, RawSession, sessions_by_callers
from benchmarks.harness.statistics import alternate, difference, ratio, sample
from benchmarks.harness.wrk import Load, check_wrk, post
from models.card import Card, Modality, Precision
from models.cores import usable_cores
from server.embedding.batcher import Batcher, CpuLanes, Priority
from server.embedding.decode import decode_image
from server.embedding.resize import resize
from server.embedding.session import OnnxEmbedder

__all__ = ["measure"]

CLIENTS = (1, 8, 32, 128)
COMPARED = 32
"""Clients at which servers are compared."""
CROPS, LARGE_CLIENTS = 16, 4
"""Crops per large request, and number of clients that send large requests."""
_WARM_UP = 5
ENOUGH = 500
"""Minimum number of crops per figure; crops in progress when the time is up are not counted."""

OURS, OURS_LARGE = "vireid", f"vireid, {CROPS} crops a request"
LITSERVE, LITSERVE_BYTES, BENTOML = "LitServe", "LitServe, raw bytes", "BentoML"

HTTP_TO_RAW = {"light": 0.65, "ResNet-50": 0.90}
LARGE_TO_RAW = 0.90
ADDED_MS = 3.0
TO_PEERS = {"light": 1.5, "ResNet-50": 1.15}
TO_BYTES = 1.0
"""Compared with LitServe receiving raw bytes, its cheapest but unusual input: not slower."""
INT8_TO_FP32 = {"light": 1.5, "ResNet-50": 3.0}


@dataclass(frozen=True, slots=True)
class Target:
    """A server that is stopped (SIGSTOP) except while it is measured."""

    name: str
    url: str
    process: Process
    body: Body
    crops: int = 1

    def load(self, clients: int, seconds: float) -> Load:
        """Measure the server under load; the rate is in crops per second.

        Raises:
            RuntimeError: a request failed, or none was answered.
        """
        try:
            with self.process.running():
                result = post(self.url, self.body.content, self.body.headers, clients, seconds)
                self._send()  # waits for the requests that wrk left unfinished, which would slow the next round
        except (OSError, RuntimeError) as error:
            raise RuntimeError(f"{self.name} with {clients} clients: {error}") from error
        return Load(result.rate * self.crops, result.p50_ms, result.p95_ms, result.p99_ms)

    def warm_up(self) -> None:
        """Send a few requests.

        Raises:
            OSError: the server does not respond, or responds with an error.
        """
        with self.process.running():
            for _ in range(_WARM_UP):
                self._send()

    def _send(self) -> None:
        with urlopen(Request(self.url, self.body.content, self.body.headers), timeout=60) as answer:
            answer.read()


def measure(effort: Effort) -> BenchmarkResult:
    """Measure both models in each of their precisions."""
    check_wrk()
    result = BenchmarkResult()
    for name, folder in {"light": LIGHT, "ResNet-50": resnet50()}.items():
        precisions = precisions_of(folder)
        for precision in precisions:
            try:
                _measure(effort, result, name, folder, precision)
            except RuntimeError as error:  # keep the other figures, which took an hour
                result.missing.append(f"{name} in {precision}: {error}")
        if Precision.INT8 in precisions:
            _measure_int8(effort, result, name, folder)
        else:
            result.missing.append(f"{name} in int8: the model has no such file")
    return result


def _measure(effort: Effort, result: BenchmarkResult, name: str, folder: Path, precision: Precision) -> None:
    """Add the tables and figures of one model graph."""
    sessions = sessions_by_callers(folder, precision)
    rates = {
        (callers, batch): session.rate_of(callers, batch, effort.seconds / 2)
        for callers, session in sessions.items()
        for batch in BATCHES
    }
    best = {callers: max(BATCHES, key=lambda batch: rates[callers, batch]) for callers in sessions}
    seconds = max(effort.seconds, ENOUGH / max(rates.values()))
    with ExitStack() as stack:
        batching = stack.enter_context(_batching(folder, precision))
        targets = _targets(stack, result, folder, precision)
        compared = [
            (OURS, 1),
            (OURS_LARGE, LARGE_CLIENTS),
            *((each, COMPARED) for each in targets if each != OURS_LARGE),
        ]
        others = [(each, count) for each in targets for count in CLIENTS if (each, count) not in compared]
        loads = {key: partial(targets[key[0]].load, key[1]) for key in (*compared, *others)}
        raw: dict[Any, Callable[[], Any]] = {
            "rate": lambda: max(sessions[callers].rate_of(callers, batch, seconds) for callers, batch in best.items()),
            "one": partial(sessions[1].latency_ms, 1, seconds / 2),
            "decoding": partial(_decoding, sessions[usable_cores()], folder, best[usable_cores()], seconds),
            "batcher": partial(batching, seconds),
        }
        taken = alternate(raw | {key: partial(loads[key], seconds) for key in compared}, effort.rounds)
        for key in others:  # long enough for several responses to every client
            if targets[key[0]].crops == 1 and not (effort.quick and key[0] != OURS):
                taken[key] = [loads[key](max(seconds, 3 * key[1] / max(rates.values())))]

    title = f"{name}, {precision}"
    rows: list[Row] = [
        {
            "what": _session_label(callers, batch),
            "crops/s": round(rate, 1),
            "ms a batch": round(1e3 * callers * batch / rate, 1),
        }
        for (callers, batch), rate in rates.items()
    ]
    decoding = f"{_session_label(usable_cores(), best[usable_cores()])}, who decode them"
    for what, key in ((decoding, "decoding"), ("batcher", "batcher")):
        rows.append({"what": what, "crops/s": round(statistics.median(taken[key]), 1)})
    result.tables[f"{title}: in process"] = rows
    result.tables[f"{title}: over HTTP"] = [
        {"server": key[0], "clients": key[1], **_median(taken[key])} for key in sorted(loads, key=str) if key in taken
    ]
    rate, one = taken["rate"], taken["one"]
    crops = {key: [load.rate for load in taken[key]] for key in compared}
    ours = crops[OURS, COMPARED]
    p50 = [load.p50_ms for load in taken[OURS, 1]]
    result.figures += [
        ratio(f"{title}: HTTP at {COMPARED} clients / bare session", ours, rate, "at least", HTTP_TO_RAW[name]),
        ratio(
            f"{title}: requests of {CROPS} crops / bare session",
            crops[OURS_LARGE, LARGE_CLIENTS],
            rate,
            "at least",
            LARGE_TO_RAW,
        ),
        difference(f"{title}: one client's p50 - session's, ms", p50, one, "at most", ADDED_MS),
        *(
            ratio(f"{title}: HTTP at {COMPARED} clients / {peer}", ours, crops[peer, COMPARED], "at least", limit)
            for peer, limit in {LITSERVE: TO_PEERS[name], BENTOML: TO_PEERS[name], LITSERVE_BYTES: TO_BYTES}.items()
            if peer in targets
        ),
    ]


def _decoding(session: RawSession, folder: Path, batch: int, seconds: float) -> float:
    """Return crops per second with one caller per core that decodes and embeds: the upper bound for a server."""
    spec, files = Card.read(folder / "card.json").input, draw_crops(batch)

    def run() -> None:
        session.embed(np.stack([resize(decode_image(file, max_pixels=2**20), spec) for file in files]))

    with ThreadPoolExecutor(usable_cores()) as pool:
        took = pool.map(lambda _: sample(run, seconds), range(usable_cores()))
        return sum(batch * len(each) / sum(each) for each in took)


def _session_label(callers: int, batch: int) -> str:
    of_one = f" of one thread, {callers} callers" if callers > 1 else ""
    return f"bare session{of_one}, batches of {batch}"


def _measure_int8(effort: Effort, result: BenchmarkResult, name: str, folder: Path) -> None:
    def rate(sessions: Mapping[int, RawSession]) -> float:
        ways = product(sessions.items(), (4, 8))
        return max(session.rate_of(callers, batch, effort.seconds) for (callers, session), batch in ways)

    both = {precision: sessions_by_callers(folder, precision) for precision in (Precision.FP32, Precision.INT8)}
    rates = {precision: partial(rate, sessions) for precision, sessions in both.items()}
    taken = alternate(rates, effort.rounds)
    result.figures.append(
        ratio(
            f"{name}: bare session, int8 / fp32",
            taken[Precision.INT8],
            taken[Precision.FP32],
            "at least",
            INT8_TO_FP32[name],
        )
    )


def _targets(stack: ExitStack, result: BenchmarkResult, folder: Path, precision: Precision) -> dict[str, Target]:
    """Start the servers of one graph, warmed up and stopped; record a peer that does not start as missing."""
    card, file = Card.read(folder / "card.json"), file_of(folder, precision).resolve()
    crops = draw_crops(CROPS)
    ours = stack.enter_context(serving(folder, VIREID_PRECISION=precision, VIREID_DEVICE="cpu"))
    address = f"{ours.url}/v1/embeddings"
    accepted = {"Accept": "application/x-npy"}
    one, many = (form(part, modality="visible") for part in (crops[:1], crops))
    targets = {
        OURS: Target(OURS, address, ours.process, Body(one.content, one.headers | accepted)),
        OURS_LARGE: Target(OURS_LARGE, address, ours.process, Body(many.content, many.headers | accepted), CROPS),
    }
    ours.process.pause()
    others = {
        LITSERVE: (partial(peers.litserve, form="json"), json_body(crops[0])),
        LITSERVE_BYTES: (partial(peers.litserve, form="bytes"), Body(crops[0], {"Content-Type": "image/jpeg"})),
        BENTOML: (peers.bentoml, form(crops[:1])),
    }
    for name, (start, body) in others.items():
        try:
            url, process = stack.enter_context(start(file))
            process.pause()
            targets[name] = Target(name, url, process, body)
            targets[name].warm_up()
        except (OSError, RuntimeError) as error:
            result.missing.append(f"{name} over {card.name} in {precision}: {error}")
            targets.pop(name, None)
    for target in (targets[OURS], targets[OURS_LARGE]):
        target.warm_up()
    return targets


@contextmanager
def _batching(folder: Path, precision: Precision) -> Iterator[Callable[[float], float]]:
    """Yield a function that measures the batcher in crops per second, with ``COMPARED`` crops in progress."""
    embedder = OnnxEmbedder(folder, precision, "cpu")
    lane = OnnxEmbedder(folder, precision, "cpu", threads=1, callers=usable_cores())
    crop = np.zeros((embedder.card.input.height, embedder.card.input.width, 3), np.uint8)
    model = embedder.card.name
    with closing(Batcher([{model: embedder}], lanes=CpuLanes({model: lane}, usable_cores()))) as batcher:

        def rate(seconds: float) -> float:
            begun = [batcher.submit(model, crop, Modality.VISIBLE, Priority.QUERY) for _ in range(COMPARED)]
            waiting, done, started = deque(begun), 0, time.perf_counter()
            while time.perf_counter() - started < seconds:
                waiting.popleft().result()
                waiting.append(batcher.submit(model, crop, Modality.VISIBLE, Priority.QUERY))
                done += 1
            rate = done / (time.perf_counter() - started)
            wait(waiting)
            return rate

        yield rate


def _median(loads: list[Load]) -> Row:
    names = {"crops/s": "rate", "p50 ms": "p50_ms", "p95 ms": "p95_ms", "p99 ms": "p99_ms"}
    return {title: round(statistics.median(getattr(load, name) for load in loads), 1) for title, name in names.items()}
