"""Runs background jobs, one of a gallery at a time, oldest first, and resumes them after a crash or a stop.

Galleries take turns: a few jobs run at once, and a long one lets those of other galleries go first now and then.
"""

from __future__ import annotations

import logging
import math
import secrets
import shutil
import time
from collections import deque
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from concurrent.futures import Future
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from threading import Condition, Event, Lock, Thread
from typing import Any, Protocol, TypeVar

from server.domain.errors import ArchiveRejected, DatabaseUnavailable, NotReady, ServiceError, StorageFull
from server.domain.timestamps import to_microseconds
from server.jobs.reader_process import ReaderDied
from server.jobs.table import JobTable
from server.jobs.types import Failure, Job, JobState
from server.storage.audit_log import AuditLog

__all__ = ["Context", "Explain", "Interrupted", "JobHandler", "JobLimits", "Jobs", "PendingJob"]

T = TypeVar("T")

RETRY_S = 1.0
"""Seconds before a retry when the service is not ready or the disk is full."""

TURN_S = 30.0
"""Seconds that a job runs before it lets one of another gallery go first."""

_PARALLEL = 3
_PRUNE_EVERY_S = 3600.0
_WINDOW_S = 30.0
_POLL_S = 0.1
_LISTED_FAILURES = 10_000
_INTERNAL = "The server failed; its log has the cause under the id of the job."
_UNCLEAN = (
    "The server, or the process that reads the upload, ended unexpectedly while it ran this job, and again when the "
    "job was retried."
)

Explain = Callable[[ServiceError], Mapping[str, Any]]
"""Turns an error into the JSON of a problem, whose ``detail`` is written for people."""

log = logging.getLogger(__name__)


class Interrupted(Exception):
    """The job was cancelled, the server is stopping, or others are to go first: the handler must return.

    Recorded progress stays.
    """


class JobHandler(Protocol):
    """Runs the jobs of one kind."""

    def run(self, context: Context) -> None:
        """Do the work from ``context.job.cursor`` on and record progress with ``context.advance``.

        Returning means success. After a crash the handler is called again with the last recorded cursor, so work done
        after that cursor must be repeatable. A ``ServiceError`` fails the job with its reason; ``NotReady`` postpones
        the job.
        """


@dataclass(frozen=True, slots=True)
class JobLimits:
    """How long a job may run, and how long and how many ended ones are kept."""

    run: timedelta = timedelta(hours=24)
    keep: timedelta = timedelta(days=30)
    keep_count: int = 10_000


class Context:
    """What a handler may do with its running job. ``folder`` belongs to the job and is removed when it ends."""

    def __init__(self, jobs: Jobs, job: Job, folder: Path) -> None:
        self._jobs, self.job, self.folder = jobs, job, folder
        self.cancelled = Event()
        self.pace = _Pace()
        self._started = time.monotonic()
        self._turn_ends: float | None = None
        self._ignored, self._failures = job.ignored, job.failures_by_reason
        self._failed, self._replaced = job.failed, job.replaced

    @property
    def run_s(self) -> float:
        """Seconds that the job ran, in all its attempts."""
        return self.job.run_s + time.monotonic() - self._started

    def set_total(self, total: int, ignored: Sequence[Mapping[str, Any]] | None = None) -> None:
        """Record the number of entries, and what of the upload is ignored, as ``ReasonCounts.to_json`` gives it."""
        if ignored is not None:
            self._ignored = type(self._ignored)(ignored)
        self._jobs._table.set_total(self.job.id, total, self._report() if ignored else None)
        self._jobs._notify(self.job.id)

    def advance(
        self,
        cursor: Any,
        *,
        done: int = 0,
        skipped: int = 0,
        replaced: int = 0,
        failed: Sequence[tuple[str, ServiceError]] = (),
    ) -> None:
        """Record durably the progress up to ``cursor`` (JSON): counts, and failures as pairs of name and error.

        Raises:
            Interrupted: the handler must return; this step is recorded nevertheless.
        """
        explained = [(name, self._jobs._explain(error)) for name, error in failed]
        for name, reason in explained:
            self._failures.add(str(reason["detail"]), name)
        listed = explained[: max(0, _LISTED_FAILURES - self._failed)]
        self._failed += len(failed)
        self._replaced += replaced
        state = self._jobs._table.advance(
            self.job.id,
            cursor,
            done=done,
            skipped=skipped,
            failed=len(failed),
            failures=listed,
            run_s=self.run_s,
            report=self._report() if failed or replaced else None,
        )
        self.pace.add(done + skipped + len(failed))
        self._jobs._notify(self.job.id)
        self.check()
        if state is not JobState.RUNNING or self._turn_is_over():
            raise Interrupted

    def check(self) -> None:
        """Raise ``Interrupted`` if the handler must return; for long work between steps.

        Raises:
            ArchiveRejected: the job has run as long as a job may.
        """
        if self._jobs.stopped or self.cancelled.is_set():
            raise Interrupted
        if self.run_s > self._jobs._limits.run.total_seconds():
            hours = self._jobs._limits.run / timedelta(hours=1)
            raise ArchiveRejected(f"the job ran for {hours:,.4g} hours, which is the longest that one may")

    def wait(self, future: Future[T]) -> T:
        """Return the result of a future; raises ``Interrupted`` while it waits."""
        while True:
            with suppress(TimeoutError):
                return future.result(_POLL_S)
            if not future.done():
                self.check()

    def stored(self) -> Job:
        """Return the job as it is recorded now."""
        return self._jobs.get(self.job.id)

    def _report(self) -> Mapping[str, Any]:
        return {"ignored": self._ignored.to_json(), "failed": self._failures.to_json(), "replaced": self._replaced}

    def _turn_is_over(self) -> bool:
        now = time.monotonic()
        if self._turn_ends is None:  # finding the way back to its place may take a while, a fifth of the turn at most
            self._turn_ends = now + max(TURN_S, 4 * (now - self._started))
        if now < self._turn_ends:
            return False
        self._turn_ends = now + TURN_S / 10
        return self._jobs._others_wait()


class PendingJob:
    """A job that is not queued yet: its id, and a folder to fill."""

    def __init__(self, jobs: Jobs, id: str, folder: Path) -> None:
        self._jobs, self.id, self.folder = jobs, id, folder
        self.submitted = False

    def submit(self, kind: str, gallery: str | None, parameters: Mapping[str, Any], key_id: str | None) -> Job:
        """Queue the job; ``parameters`` is JSON. Raises ``StorageFull``."""
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
        self._jobs._wake()
        return job


class Jobs:
    """All jobs of a server, and the threads that run them. Thread-safe.

    ``folder`` contains one folder for each job that has not ended; anything else there is left from a crash and is
    removed. ``handlers`` maps the kind of a job to its handler; a job of an unknown kind fails. ``tidy`` is called at
    the start and after each job, with the ids of all jobs that have not ended, to remove what other jobs left behind;
    no job starts meanwhile. ``observe`` is called with kind and state of each job that has ended.
    """

    def __init__(
        self,
        table: JobTable,
        folder: Path,
        handlers: Mapping[str, JobHandler],
        explain: Explain,
        audit: AuditLog,
        tidy: Callable[[Collection[str]], object] = frozenset,
        limits: JobLimits | None = None,
        observe: Callable[[str, str], object] = lambda _kind, _state: None,
    ) -> None:
        self._observe = observe
        self._table, self._folder, self._handlers, self._explain, self._audit = table, folder, handlers, explain, audit
        self._tidy, self._limits = tidy, limits or JobLimits()
        self._stopped = Event()
        self._changed = Condition()  # guards what follows; a job is either started or cancelled, never both
        self._running: dict[str, Context] = {}
        self._served: dict[str | None, float] = {}
        self._claiming = Lock()  # one thread tidies and waits for a job; the others are busy or queue behind it
        self._untidy, self._pruned = True, -math.inf
        self._watching = Lock()
        self._watchers: dict[str, list[Callable[[], object]]] = {}
        self._recover()
        self._threads = [Thread(target=self._work, name=f"jobs-{n}", daemon=True) for n in range(_PARALLEL)]
        for thread in self._threads:
            thread.start()

    @contextmanager
    def pending(self) -> Iterator[PendingJob]:
        """Create a job to fill; it is discarded unless it is submitted within the block."""
        id = f"job_{to_microseconds(datetime.now(UTC)):014x}{secrets.token_hex(4)}"
        pending = PendingJob(self, id, self._folder / id)
        pending.folder.mkdir()
        try:
            yield pending
        finally:
            if not pending.submitted:
                _remove(pending.folder)

    def get(self, id: str) -> Job:
        """Return one job. Raises ``JobNotFound``, as every method below."""
        return self._table.get(id)

    def list(
        self,
        *,
        limit: int,
        after: str | None = None,
        state: JobState | None = None,
        galleries: Collection[str] | None = None,
    ) -> list[Job]:
        """Return at most ``limit`` jobs, newest first; see :meth:`JobTable.list`."""
        return self._table.list(limit=limit, after=after, state=state, galleries=galleries)

    def failures(self, id: str, *, limit: int, after: int | None = None) -> Sequence[Failure]:
        """Return at most ``limit`` failures, oldest first, with numbers above ``after``."""
        return self._table.failures(id, limit=limit, after=after)

    def cancel(self, id: str) -> Job:
        """Cancel a job that has not ended; its recorded progress stays. A running job stops within a moment."""
        with self._changed:
            job = self._table.end(id, JobState.CANCELLED)
            if (context := self._running.get(id)) is not None:
                context.cancelled.set()
            else:
                _remove(self._folder / id)
                self._untidy = True
            self._changed.notify_all()  # so that a thread tidies
        self._notify(id)
        return job

    def rate(self, job: Job) -> float | None:
        """Return entries per second: recent for a running job, on average for an ended one; None if unknown."""
        if job.state is JobState.RUNNING:
            context = self._running.get(job.id)
            return None if context is None else context.pace.rate()
        if job.started_at is None or job.finished_at is None or not job.processed:
            return None
        return job.processed / max((job.finished_at - job.started_at).total_seconds(), 1e-3)

    @property
    def stopped(self) -> bool:
        """Whether the runner was stopped, so that no job changes before the next start."""
        return self._stopped.is_set()

    @contextmanager
    def watching(self, id: str, changed: Callable[[], object]) -> Iterator[None]:
        """Call ``changed``, from any thread, after each change of a job and when the server stops."""
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
        """Start no further step; running jobs resume at the next start."""
        self._stopped.set()
        for id in list(self._watchers):
            self._notify(id)
        Thread(target=self._wake, daemon=True).start()  # a caller that serves requests must not wait for the disk

    def close(self) -> None:
        """Stop, and wait for the current steps."""
        self.stop()
        for thread in self._threads:
            thread.join()

    def _recover(self) -> None:
        """Clean up what the previous process left unfinished."""
        self._folder.mkdir(parents=True, exist_ok=True)
        active = self._table.active()
        for found in self._folder.iterdir():
            if found.name not in active:
                _remove(found)
        for job in self._table.end_uncleanly():
            self._end(job, JobState.FAILED, _UNCLEAN)

    def _notify(self, id: str) -> None:
        with self._watching:
            watchers = list(self._watchers.get(id, ()))
        for changed in watchers:
            changed()

    def _wake(self) -> None:
        with self._changed:
            self._changed.notify_all()

    def _others_wait(self) -> bool:
        """Whether a job of another gallery waits for a thread."""
        with self._changed:
            busy = {context.job.gallery for context in self._running.values()}
            waiting = self._table.oldest_queued().keys() - busy
            return bool(waiting) and len(self._running) >= _PARALLEL

    def _work(self) -> None:
        while not self._stopped.is_set():
            try:
                with self._claiming:
                    self._tidy_up()
                    context = self._claim()
                if context is not None:
                    try:
                        self._run(context)
                    finally:
                        self._release(context.job)
            except NotReady as error:
                log.info("the job runner waits: %s", error)
                self._stopped.wait(RETRY_S)
            except Exception:
                log.exception("the job runner failed and continues")
                self._stopped.wait(RETRY_S)

    def _claim(self) -> Context | None:
        """Start the job whose gallery was served longest ago; where there is none, wait for a change."""
        with self._changed:
            if self._stopped.is_set() or self._untidy:
                return None
            busy = {context.job.gallery for context in self._running.values()}
            queued = {gallery: id for gallery, id in self._table.oldest_queued().items() if gallery not in busy}
            if not queued:
                self._changed.wait(_PRUNE_EVERY_S)
                return None
            gallery = min(queued, key=lambda gallery: (self._served.get(gallery, 0.0), queued[gallery]))
            job = self._table.start(queued[gallery])
            if job is None:
                return None
            context = self._running[job.id] = Context(self, job, self._folder / job.id)
            return context

    def _release(self, job: Job) -> None:
        now = self._insist(partial(self._table.get, job.id))
        with self._changed:
            del self._running[job.id]
            self._served[job.gallery] = time.monotonic()
            if now is not None and now.state.ended:
                _remove(self._folder / job.id)
                self._untidy = True
            self._changed.notify_all()

    def _tidy_up(self) -> None:
        if self._untidy:
            self._untidy = False
            self._tidy(self._table.active())
        if time.monotonic() - self._pruned > _PRUNE_EVERY_S:
            self._pruned = time.monotonic()
            while self._table.prune(datetime.now(UTC) - self._limits.keep, self._limits.keep_count):
                if self._stopped.is_set():
                    return

    def _run(self, context: Context) -> None:
        job = context.job
        log.info("job %s (%s) starts", job.id, job.kind)
        self._notify(job.id)
        try:
            handler = self._handlers[job.kind]  # a KeyError means that another version created the job
            handler.run(context)
        except Interrupted:
            now = self._insist(partial(self._table.get, job.id))
            if now is not None and now.state.ended:
                self._end(job, JobState.CANCELLED, None)
            else:
                self._insist(partial(self._table.requeue, job.id, context.run_s))
        except NotReady as error:
            log.info("job %s is postponed: %s", job.id, error)
            self._insist(partial(self._table.requeue, job.id))
            self._stopped.wait(RETRY_S)
        except ReaderDied as error:
            log.warning("job %s: the process that reads its upload ended: %s", job.id, error)
            for failed in self._insist(partial(self._table.end_uncleanly, job.id)) or ():
                self._end(failed, JobState.FAILED, _UNCLEAN)
        except ServiceError as error:
            self._end(job, JobState.FAILED, str(self._explain(error)["detail"]))
        except Exception:
            log.exception("job %s failed", job.id)
            self._end(job, JobState.FAILED, _INTERNAL)
        else:
            self._end(job, JobState.SUCCEEDED, None)

    def _insist(self, use: Callable[[], T]) -> T | None:
        """Use the table, again and again while the database is not available; None if the runner stops meanwhile."""
        while True:
            try:
                return use()
            except DatabaseUnavailable:
                if self._stopped.wait(RETRY_S):
                    return None

    def _end(self, job: Job, state: JobState, error: str | None) -> None:
        """Store the final state; on a full disk, free the folder of the job and retry until it fits."""
        while True:
            try:
                ended = self._insist(partial(self._table.end, job.id, state, error))
                break
            except StorageFull:
                _remove(self._folder / job.id)
                if self._stopped.wait(RETRY_S):
                    return  # the next start finds the job running, without its folder
        if ended is None:
            return
        _remove(self._folder / job.id)
        counts = {"done": ended.done, "failed": ended.failed, "skipped": ended.skipped}
        log.info("job %s %s: %s", job.id, ended.state, counts)
        self._observe(job.kind, ended.state.value)
        detail = {"job": job.id, "kind": job.kind, "state": ended.state.value, **counts}
        with suppress(StorageFull):
            self._audit.record(job.key_id, "job.end", job.gallery, detail)
        self._notify(job.id)


class _Pace:
    """Entries per second over the last half minute."""

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
