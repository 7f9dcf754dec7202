"""Runs jobs, one at a time, oldest first, and takes them up again where a crash or a stop has left them."""

from __future__ import annotations

import logging
import secrets
import shutil
import time
from collections import deque
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from threading import Event, Lock, Thread
from typing import Any, Protocol

from server.audit import Audit
from server.errors import NotReady, ServiceError, StorageFull
from server.gallery.moments import to_micros
from server.jobs.table import JobTable
from server.jobs.types import Failure, Job, JobState

__all__ = ["Context", "Draft", "Explain", "Interrupted", "Jobs", "Kind"]

RETRY_S = 1.0
"""Seconds until something that is not ready, or has no room, is tried again."""

_WINDOW_S = 30.0
_INTERNAL = "The server failed; its log has the cause under the id of the job."

Explain = Callable[[ServiceError], Mapping[str, Any]]
"""An error as the JSON of a problem, whose ``detail`` is for people."""

log = logging.getLogger(__name__)


class Interrupted(Exception):
    """The job was cancelled, or the server stops: leave ``run``, and what was noted stands."""


class Kind(Protocol):
    """A kind of job."""

    def run(self, context: Context) -> None:
        """Do the work from ``context.job.cursor`` on, noting it with ``context.advance``; returning is success.

        Called again with the last cursor after a crash, so that what was done behind it must bear being done twice. A
        ``ServiceError`` fails the job for its reason; ``NotReady`` puts it off.
        """


class Context:
    """A running job's hold on its row. ``folder`` is its own, and goes when it ends."""

    def __init__(self, jobs: Jobs, job: Job, folder: Path) -> None:
        self._jobs, self.job, self.folder = jobs, job, folder

    def set_total(self, total: int) -> None:
        """Note how many entries there are."""
        self._jobs._table.set_total(self.job.id, total)
        self._jobs._notify(self.job.id)

    def advance(
        self, cursor: Any, *, done: int = 0, skipped: int = 0, failed: Sequence[tuple[str, ServiceError]] = ()
    ) -> None:
        """Note, on the disk, what was worked off until ``cursor`` (JSON): counts, and names of failures with reasons.

        Raises:
            Interrupted: the job was cancelled, or the server stops; this step is noted all the same.
        """
        explained = [(name, self._jobs._explain(error)) for name, error in failed]
        state = self._jobs._table.advance(self.job.id, cursor, done=done, skipped=skipped, failures=explained)
        self._jobs._step(self.job.id, done + skipped + len(failed))
        if state is not JobState.RUNNING:
            raise Interrupted
        self.check()

    def check(self) -> None:
        """Raise ``Interrupted`` when the job was cancelled or the server stops; for long work without steps."""
        if self._jobs._stopped.is_set() or self._jobs._cancelled.is_set():
            raise Interrupted


class Draft:
    """A job before it is one: an id and a folder of its own to put things into."""

    def __init__(self, jobs: Jobs, id: str, folder: Path) -> None:
        self._jobs, self.id, self.folder = jobs, id, folder
        self.submitted = False

    def submit(self, kind: str, gallery: str | None, parameters: Mapping[str, Any], key_id: str | None) -> Job:
        """Put it into the queue; ``parameters`` are JSON. Raises ``StorageFull``."""
        job = Job(
            id=self.id,
            kind=kind,
            gallery=gallery,
            state=JobState.QUEUED,
            parameters=parameters,
            cursor=None,
            total=None,
            done=0,
            failed=0,
            skipped=0,
            error=None,
            key_id=key_id,
            created_at=datetime.now(UTC),
        )
        self._jobs._table.add(job)
        self.submitted = True
        self._jobs._waiting.set()
        return job


class Jobs:
    """All jobs of a server, and the thread that works them off. Thread-safe.

    ``folder`` holds a folder for each job that has not ended; what else lies there is from a crash and is removed.
    ``kinds`` are the known ones by name; a job of another kind fails. ``tidy`` is called, with the ids of all jobs that
    have not ended, whenever others may have left something elsewhere: at the start, and after a job has ended.
    """

    def __init__(
        self,
        table: JobTable,
        folder: Path,
        kinds: Mapping[str, Kind],
        explain: Explain,
        audit: Audit,
        tidy: Callable[[Collection[str]], object] = frozenset,
    ) -> None:
        self._table, self._folder, self._kinds, self._explain, self._audit = table, folder, kinds, explain, audit
        self._tidy = tidy
        self._stopped, self._waiting = Event(), Event()
        self._taking = Lock()  # a job is taken up or cancelled, not both at once
        self._running: str | None = None
        self._cancelled = Event()  # the running job
        self._watching = Lock()
        self._watchers: dict[str, list[Callable[[], object]]] = {}
        self._pace = _Pace()
        folder.mkdir(parents=True, exist_ok=True)
        active = table.active()
        for left in folder.iterdir():
            if left.name not in active:
                _remove(left)
        table.requeue()
        self._thread = Thread(target=self._work, name="jobs", daemon=True)
        self._thread.start()

    @contextmanager
    def draft(self) -> Iterator[Draft]:
        """A new job to fill; what was not submitted when the block ends is gone."""
        id = f"job_{to_micros(datetime.now(UTC)):014x}{secrets.token_hex(4)}"
        draft = Draft(self, id, self._folder / id)
        draft.folder.mkdir()
        try:
            yield draft
        finally:
            if not draft.submitted:
                _remove(draft.folder)

    def get(self, id: str) -> Job:
        """One job. Raises ``JobNotFound``, as every method below."""
        return self._table.get(id)

    def list(
        self,
        *,
        limit: int,
        after: str | None = None,
        state: JobState | None = None,
        galleries: Collection[str] | None = None,
    ) -> list[Job]:
        """At most ``limit`` jobs, newest first; see :meth:`JobTable.list`."""
        return self._table.list(limit=limit, after=after, state=state, galleries=galleries)

    def failures(self, id: str, *, limit: int, after: int | None = None) -> Sequence[Failure]:
        """At most ``limit`` failures, oldest first, those with a number above ``after``."""
        return self._table.failures(id, limit=limit, after=after)

    def cancel(self, id: str) -> Job:
        """Cancel a job that has not ended; what it has done stays. A running one stops after the step it is at."""
        with self._taking:
            job = self._table.end(id, JobState.CANCELLED)
            if id == self._running:
                self._cancelled.set()
            else:
                _remove(self._folder / id)
        self._notify(id)
        self._waiting.set()  # the worker tidies up
        return job

    def rate(self, job: Job) -> float | None:
        """Entries in a second: of late for the running job, on the whole for one that has ended; None: unknown."""
        if job.state is JobState.RUNNING:
            return self._pace.rate()
        if job.started_at is None or job.finished_at is None or not job.processed:
            return None
        return job.processed / max((job.finished_at - job.started_at).total_seconds(), 1e-3)

    @property
    def stopped(self) -> bool:
        """Whether no more changes will come before the next start."""
        return self._stopped.is_set()

    @contextmanager
    def watching(self, id: str, changed: Callable[[], object]) -> Iterator[None]:
        """Call ``changed`` after each change of a job, and when the server stops, from any thread."""
        with self._watching:
            self._watchers.setdefault(id, []).append(changed)
        try:
            yield
        finally:
            with self._watching:
                self._watchers[id].remove(changed)
                if not self._watchers[id]:
                    del self._watchers[id]

    def stop(self) -> None:
        """Begin no further step; the running job goes on at the next start."""
        self._stopped.set()
        self._waiting.set()
        for id in list(self._watchers):
            self._notify(id)

    def close(self) -> None:
        """Stop, and wait for the step under way."""
        self.stop()
        self._thread.join()

    def _notify(self, id: str) -> None:
        with self._watching:
            watchers = list(self._watchers.get(id, ()))
        for changed in watchers:
            changed()

    def _step(self, id: str, entries: int) -> None:
        self._pace.add(entries)
        self._notify(id)

    def _work(self) -> None:
        while not self._stopped.is_set():
            try:
                self._waiting.clear()
                self._tidy(self._table.active())
                with self._taking:
                    job = self._table.take()
                    self._running = None if job is None else job.id
                    self._cancelled.clear()
                if job is None:
                    self._waiting.wait()
                    continue
                self._run(job)
                with self._taking:
                    self._running = None
                    if self._table.get(job.id).state.ended:
                        _remove(self._folder / job.id)
            except Exception:
                log.exception("jobs: the worker failed and goes on")
                self._stopped.wait(RETRY_S)

    def _run(self, job: Job) -> None:
        log.info("job %s (%s) begins", job.id, job.kind)
        self._pace = _Pace()
        self._notify(job.id)
        try:
            kind = self._kinds[job.kind]  # a KeyError is the work of another version of this program
            kind.run(Context(self, job, self._folder / job.id))
        except Interrupted:
            if self._table.get(job.id).state.ended:
                self._end(job, JobState.CANCELLED, None)
        except NotReady as error:
            log.info("job %s waits: %s", job.id, error)
            self._table.requeue(job.id)
            self._stopped.wait(RETRY_S)
        except ServiceError as error:
            self._end(job, JobState.FAILED, str(self._explain(error)["detail"]))
        except Exception:
            log.exception("job %s failed", job.id)
            self._end(job, JobState.FAILED, _INTERNAL)
        else:
            self._end(job, JobState.SUCCEEDED, None)

    def _end(self, job: Job, state: JobState, error: str | None) -> None:
        """End the running job; on a full disk its folder makes room for the note, which is tried until it fits."""
        while True:
            try:
                ended = self._table.end(job.id, state, error)
                break
            except StorageFull:
                _remove(self._folder / job.id)
                if self._stopped.wait(RETRY_S):
                    return  # the next start finds it running, without its folder
        _remove(self._folder / job.id)
        counts = {"done": ended.done, "failed": ended.failed, "skipped": ended.skipped}
        log.info("job %s %s: %s", job.id, ended.state, counts)
        detail = {"job": job.id, "kind": job.kind, "state": ended.state.value, **counts}
        with suppress(StorageFull):
            self._audit.record(job.key_id, "job.end", job.gallery, detail)
        self._notify(job.id)


class _Pace:
    """How many entries a second the last half a minute has seen."""

    def __init__(self) -> None:
        self._steps = deque([(time.monotonic(), 0)])

    def add(self, entries: int) -> None:
        now = time.monotonic()
        self._steps.append((now, entries))
        while now - self._steps[1][0] > _WINDOW_S:
            self._steps.popleft()

    def rate(self) -> float | None:
        steps = list(self._steps)
        entries = sum(count for _, count in steps[1:])
        return entries / max(time.monotonic() - steps[0][0], 1e-3) if entries else None


def _remove(folder: Path) -> None:
    shutil.rmtree(folder, ignore_errors=True)
    if folder.exists():
        log.warning("%s could not be removed", folder)
