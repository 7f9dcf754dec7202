"""Jobs of any kind: states, counts and failures survive a stop; jobs run one at a time, in order."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager
from pathlib import Path
from queue import Queue
from typing import Any

import pytest

from server.domain.errors import EntryRejected, JobNotFound, NotReady, ServiceError, StorageFull
from server.jobs import runner
from server.jobs.runner import Context, Interrupted, Jobs
from server.jobs.table import JobTable
from server.jobs.types import Job, JobState
from server.storage.audit_log import AuditLog
from server.storage.sql_store import SqlStore

PATIENCE_S = 30.0


class Steps:
    """A handler under control of the test: each call of ``step`` makes it do one step, or raise."""

    def __init__(self) -> None:
        self.orders: Queue[Exception | None] = Queue()
        self.began: Queue[Context] = Queue()
        self.at: Queue[int] = Queue()

    def run(self, context: Context) -> None:
        self.began.put(context)
        context.set_total(3)
        for step in range(context.job.cursor or 0, 3):
            self.at.put(step)
            if error := self.orders.get(timeout=PATIENCE_S):
                raise error
            context.advance(step + 1, done=1, skipped=2, failed=[(f"entry {step}", EntryRejected("it is bad"))])

    def begin(self) -> Context:
        return self.began.get(timeout=PATIENCE_S)

    def reach(self, step: int) -> None:
        """Wait until the handler waits for this step; all earlier steps are recorded."""
        while self.at.get(timeout=PATIENCE_S) != step:
            pass

    def step(self, count: int = 1, error: Exception | None = None) -> None:
        for _ in range(count):
            self.orders.put(error)


def explain(error: ServiceError) -> Mapping[str, Any]:
    return {"detail": str(error)}


class Server:
    """Jobs over one data directory, which can be reopened."""

    def __init__(self, folder: Path, database_url: str) -> None:
        self.folder, self.database_url = folder, database_url

    @contextmanager
    def open(self, **kinds: Any) -> Iterator[Jobs]:
        with closing(SqlStore(self.database_url)) as store:
            self.audit = AuditLog(store.engine)
            with closing(Jobs(JobTable(store.engine), self.folder / "jobs", kinds, explain, self.audit)) as jobs:
                yield jobs

    def folders(self) -> set[str]:
        return {path.name for path in (self.folder / "jobs").iterdir()}


@pytest.fixture
def server(tmp_path: Path, database_url: str) -> Server:
    return Server(tmp_path, database_url)


def submit(jobs: Jobs, kind: str = "steps", gallery: str | None = "g") -> Job:
    with jobs.pending() as pending:
        (pending.folder / "body").write_bytes(b"x")
        return pending.submit(kind, gallery, {"a": 1}, "key")


def until(jobs: Jobs, id: str, condition: Callable[[Job], bool]) -> Job:
    """Return the job once the condition holds."""
    changed = threading.Event()
    with jobs.watching(id, changed.set):
        while not condition(job := jobs.get(id)):
            assert changed.wait(PATIENCE_S), job
            changed.clear()
        return job


def end(jobs: Jobs, id: str) -> Job:
    return until(jobs, id, lambda job: job.state.ended)


def counts(job: Job) -> tuple[JobState, int | None, int, int, int]:
    return job.state, job.total, job.done, job.failed, job.skipped


def test_job_is_queued_runs_and_succeeds(server: Server) -> None:
    steps = Steps()
    with server.open(steps=steps) as jobs:
        job = submit(jobs)
        assert counts(job) == (JobState.QUEUED, None, 0, 0, 0)
        context = steps.begin()
        assert (context.job.parameters, (context.folder / "body").read_bytes()) == ({"a": 1}, b"x")
        steps.step()
        steps.reach(1)
        running = jobs.get(job.id)
        assert counts(running) == (JobState.RUNNING, 3, 1, 1, 2)
        assert (jobs.rate(running) or 0) > 0
        steps.step(2)
        done = end(jobs, job.id)
        assert counts(done) == (JobState.SUCCEEDED, 3, 3, 3, 6)
        assert done.started_at is not None
        assert done.finished_at is not None
        assert job.created_at <= done.started_at <= done.finished_at
        assert [(f.name, f.reason) for f in jobs.failures(job.id, limit=9)] == [
            (f"entry {step}", {"detail": "it is bad"}) for step in range(3)
        ]
        first, second = jobs.failures(job.id, limit=2)
        assert jobs.failures(job.id, limit=2, after=second.number)[0].name == "entry 2"
        assert first.number < second.number
    (entry,) = audit_of(server)
    assert (entry.key_id, entry.action, entry.gallery, entry.detail["state"]) == ("key", "job.end", "g", "succeeded")
    assert server.folders() == set()


def audit_of(server: Server) -> list[Any]:
    with server.open():
        return server.audit.list(10)


def test_jobs_of_a_gallery_run_one_at_a_time_oldest_first(server: Server) -> None:
    steps = Steps()
    with server.open(steps=steps) as jobs:
        ids = [submit(jobs).id for _ in range(3)]
        assert [job.id for job in jobs.list(limit=2)] == [ids[2], ids[1]]
        assert [job.id for job in jobs.list(limit=2, after=ids[1])] == [ids[0]]
        for id in ids:
            assert steps.begin().job.id == id
            assert steps.began.empty()
            steps.step(3)
            end(jobs, id)
        assert jobs.list(limit=9, state=JobState.QUEUED) == []
        assert jobs.list(limit=9, galleries=["other"]) == []
        assert len(jobs.list(limit=9, galleries=["g"], state=JobState.SUCCEEDED)) == 3


@pytest.mark.parametrize(
    ("error", "text"),
    [(EntryRejected("it cannot be"), "it cannot be"), (RuntimeError("a bug"), "The server failed; its log")],
)
def test_error_fails_the_job_and_the_next_job_runs(server: Server, error: Exception, text: str) -> None:
    steps = Steps()
    with server.open(steps=steps) as jobs:
        bad, good = submit(jobs), submit(jobs)
        steps.step()
        steps.step(error=error)
        failed = end(jobs, bad.id)
        assert counts(failed) == (JobState.FAILED, 3, 1, 1, 2)
        assert text in (failed.error or "")
        assert "a bug" not in (failed.error or "")
        steps.step(3)
        assert end(jobs, good.id).state is JobState.SUCCEEDED
    assert server.folders() == set()


def test_job_of_unknown_kind_fails(server: Server) -> None:
    with server.open() as jobs:
        assert end(jobs, submit(jobs, "kind of a later version").id).state is JobState.FAILED


def test_stopped_job_resumes_from_its_cursor(server: Server) -> None:
    steps = Steps()
    with server.open(steps=steps) as jobs:
        job = submit(jobs)
        waiting = submit(jobs)
        steps.begin()
        steps.step()
        steps.reach(1)
        jobs.stop()
        steps.step()  # the step under way is noted
    assert server.folders() == {job.id, waiting.id}
    steps = Steps()
    with server.open(steps=steps) as jobs:
        context = steps.begin()
        assert (context.job.id, context.job.cursor, context.job.done) == (job.id, 2, 2)
        assert context.job.started_at == jobs.get(job.id).started_at
        steps.step()
        assert counts(end(jobs, job.id)) == (JobState.SUCCEEDED, 3, 3, 3, 6)
        steps.step(3)
        assert end(jobs, waiting.id).state is JobState.SUCCEEDED


def test_a_job_stopped_at_its_last_step_is_not_done_twice(server: Server) -> None:
    steps = Steps()
    with server.open(steps=steps) as jobs:
        job = submit(jobs)
        steps.begin()
        steps.step(2)
        steps.reach(2)
        jobs.stop()
        steps.step()
    with server.open(steps=Steps()) as jobs:
        assert counts(end(jobs, job.id)) == (JobState.SUCCEEDED, 3, 3, 3, 6)


def test_a_queued_job_is_cancelled_at_once_and_a_running_one_after_its_step(server: Server) -> None:
    steps = Steps()
    with server.open(steps=steps) as jobs:
        running, queued = submit(jobs), submit(jobs)
        steps.begin()
        assert jobs.cancel(queued.id).state is JobState.CANCELLED
        assert server.folders() == {running.id}
        assert jobs.cancel(running.id).state is JobState.CANCELLED
        steps.step()
        last = submit(jobs)
        assert steps.begin().job.id == last.id
        assert counts(jobs.get(running.id)) == (JobState.CANCELLED, 3, 1, 1, 2)
        assert server.folders() == {last.id}
        steps.step(3)
        assert end(jobs, last.id).state is JobState.SUCCEEDED
        assert jobs.cancel(last.id).state is JobState.SUCCEEDED
        with pytest.raises(JobNotFound):
            jobs.cancel("none")


def test_cancelled_job_stays_cancelled_after_restart(server: Server) -> None:
    steps = Steps()
    with server.open(steps=steps) as jobs:
        job = submit(jobs)
        steps.begin()
        jobs.cancel(job.id)
        jobs.stop()
        steps.step()
    with server.open(steps=Steps()) as jobs:
        assert jobs.get(job.id).state is JobState.CANCELLED
        assert server.folders() == set()


def test_job_is_retried_while_the_service_is_not_ready(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runner, "RETRY_S", 0.01)
    steps = Steps()
    with server.open(steps=steps) as jobs:
        job = submit(jobs)
        steps.step(error=NotReady(["the gallery is being loaded"]))
        steps.begin()
        assert steps.begin().job.id == job.id
        steps.step(3)
        assert end(jobs, job.id).state is JobState.SUCCEEDED


def test_job_on_full_disk_fails_once_its_state_can_be_stored(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runner, "RETRY_S", 0.01)
    steps, tries = Steps(), []
    original = JobTable.end

    def full_at_first(table: JobTable, id: str, state: JobState, error: str | None = None) -> Job:
        tries.append(server.folders())
        if len(tries) < 3:
            raise StorageFull
        return original(table, id, state, error)

    with server.open(steps=steps) as jobs:
        monkeypatch.setattr(JobTable, "end", full_at_first)
        job = submit(jobs)
        steps.step(error=StorageFull())
        assert end(jobs, job.id).state is JobState.FAILED
        assert tries == [{job.id}, set(), set()]


def test_job_that_is_not_submitted_leaves_nothing_behind(server: Server) -> None:
    with server.open() as jobs:
        with jobs.pending() as pending:
            (pending.folder / "body").write_bytes(b"x")
        with pytest.raises(RuntimeError), jobs.pending():
            raise RuntimeError
        assert server.folders() == set()
        assert jobs.list(limit=9) == []
    (server.folder / "jobs" / "left").mkdir()  # by a crash
    with server.open():
        assert server.folders() == set()


def test_handler_can_stop_between_entries_on_cancel_and_on_server_stop(server: Server) -> None:
    started, left = threading.Event(), threading.Event()

    class Endless:
        def run(self, context: Context) -> None:
            started.set()
            try:
                while True:
                    context.check()
            except Interrupted:
                left.set()
                raise

    with server.open(endless=Endless()) as jobs:
        job = submit(jobs, "endless")
        assert started.wait(PATIENCE_S)
    assert left.is_set()
    started.clear()
    left.clear()
    with server.open(endless=Endless(), steps=(steps := Steps())) as jobs:
        assert started.wait(PATIENCE_S)
        jobs.cancel(job.id)
        assert left.wait(PATIENCE_S)
        steps.step(3)
        assert end(jobs, submit(jobs).id).state is JobState.SUCCEEDED
        assert jobs.get(job.id).state is JobState.CANCELLED
