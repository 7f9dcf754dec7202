"""The client for asyncio: the same calls as :class:`Client`, each run in a thread of its own pool."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from types import TracebackType
from typing import Any, Concatenate, ParamSpec, Self, TypeVar

from vireid import DEFAULT_URL
from vireid.client.client import Client

__all__ = ["AsyncClient"]

P = ParamSpec("P")
T = TypeVar("T")

_END = object()


def _call(
    method: Callable[Concatenate[Client, P], T],
) -> Callable[Concatenate[AsyncClient, P], Awaitable[T]]:
    async def call(self: AsyncClient, /, *args: P.args, **kwargs: P.kwargs) -> T:
        return await self._run(lambda: method(self._client, *args, **kwargs))

    call.__doc__, call.__name__ = method.__doc__, method.__name__
    return call


def _iterate(
    method: Callable[Concatenate[Client, P], Iterator[T]],
) -> Callable[Concatenate[AsyncClient, P], AsyncIterator[T]]:
    async def iterate(self: AsyncClient, /, *args: P.args, **kwargs: P.kwargs) -> AsyncIterator[T]:
        found = await self._run(lambda: method(self._client, *args, **kwargs))
        while (entry := await self._run(lambda: next(found, _END))) is not _END:
            yield entry  # type: ignore[misc]  # not _END

    iterate.__doc__, iterate.__name__ = method.__doc__, method.__name__
    return iterate


class AsyncClient:
    """A connection to a vireid server for asyncio; arguments and calls are those of :class:`Client`.

    At most ``parallel`` calls run at a time; further ones wait. A call that is cancelled while its request is on the
    way may still be carried out by the server.

    >>> async def first_hit():  # doctest: +SKIP
    ...     async with AsyncClient() as client:
    ...         return (await client.search("night", ["crop.png"])).hits[0]
    """

    def __init__(
        self, base_url: str = DEFAULT_URL, key: str | None = None, *, parallel: int = 16, **options: Any
    ) -> None:
        self._client = Client(base_url, key, **options)
        self._threads = ThreadPoolExecutor(parallel, thread_name_prefix="vireid")

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Close every connection, after the calls that still run."""
        await asyncio.to_thread(self._threads.shutdown)
        self._client.close()

    async def _run(self, call: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._threads, call)

    @property
    def base_url(self) -> str:
        """Address of the server."""
        return self._client.base_url

    ready = _call(Client.ready)
    limits = _call(Client.limits)
    models = _call(Client.models)
    model = _call(Client.model)
    metrics = _call(Client.metrics)
    embed = _call(Client.embed)
    compare = _call(Client.compare)
    create_gallery = _call(Client.create_gallery)
    galleries = _iterate(Client.galleries)
    gallery = _call(Client.gallery)
    summary = _call(Client.summary)
    update_gallery = _call(Client.update_gallery)
    delete_gallery = _call(Client.delete_gallery)
    aliases = _call(Client.aliases)
    set_alias = _call(Client.set_alias)
    remove_alias = _call(Client.remove_alias)
    add_items = _call(Client.add_items)
    add_vectors = _call(Client.add_vectors)
    items = _iterate(Client.items)
    count_items = _call(Client.count_items)
    item = _call(Client.item)
    update_item = _call(Client.update_item)
    duplicates = _iterate(Client.duplicates)
    delete_item = _call(Client.delete_item)
    erase = _call(Client.erase)
    receipts = _iterate(Client.receipts)
    receipt = _call(Client.receipt)
    image = _call(Client.image)
    search = _call(Client.search)
    hits = _iterate(Client.hits)
    search_many = _call(Client.search_many)
    import_file = _call(Client.import_file)
    import_directory = _call(Client.import_directory)
    jobs = _iterate(Client.jobs)
    job = _call(Client.job)
    watch = _iterate(Client.watch)
    wait = _call(Client.wait)
    cancel_job = _call(Client.cancel_job)
    job_failures = _iterate(Client.job_failures)
    snapshot = _iterate(Client.snapshot)
    restore = _call(Client.restore)
    reembed = _call(Client.reembed)
    calibrate = _call(Client.calibrate)
    calibrations = _call(Client.calibrations)
    api_keys = _iterate(Client.api_keys)
    create_key = _call(Client.create_key)
    rotate_key = _call(Client.rotate_key)
    delete_key = _call(Client.delete_key)
    audit = _iterate(Client.audit)
    verify_audit = _call(Client.verify_audit)
    retention = _call(Client.retention)
    confirm_clock = _call(Client.confirm_clock)
