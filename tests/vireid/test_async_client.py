"""The client for asyncio: the calls of the client, with the same arguments, answers and errors."""

from __future__ import annotations

import asyncio
import inspect

import pytest

from models.card import Modality
from tests.server.image_files import crop
from vireid.client import AsyncClient, Client, Filter, ItemFields, JobFailed, NotFound


def test_every_call_of_the_client_is_there_with_its_description() -> None:
    calls = {name for name, value in vars(Client).items() if inspect.isfunction(value) and not name.startswith("_")}
    assert calls <= set(vars(AsyncClient))
    for name in calls - {"close"}:
        assert getattr(AsyncClient, name).__doc__ == getattr(Client, name).__doc__


async def test_calls_run_side_by_side_and_lists_are_iterated(url: str, gallery: str) -> None:
    async with AsyncClient(url) as client:
        items = [(crop(n, Modality.INFRARED), ItemFields(id=f"p{n}", modality="infrared")) for n in range(12)]
        seen: list[int] = []
        assert len(await client.add_items(gallery, items, progress=seen.append)) == 12
        assert seen == [8, 12]
        answers = await asyncio.gather(*(client.search(gallery, item_id=f"p{n}", k=2) for n in range(12)))
        assert [answer.searched for answer in answers] == [11] * 12
        assert [item.id async for item in client.items(gallery, Filter(ids=["p1", "p3"]))] == ["p1", "p3"]
        hits = [hit.item.id async for hit in client.hits(gallery, item_id="p1", k=5)]
        assert len(hits) == len(set(hits)) == 11


async def test_errors_are_those_of_the_client(url: str) -> None:
    async with AsyncClient(url) as client:
        with pytest.raises(NotFound):
            await client.gallery("nowhere")
        with pytest.raises(NotFound):
            _ = [item async for item in client.items("nowhere")]


async def test_a_job_is_waited_for(url: str, gallery: str) -> None:
    async with AsyncClient(url) as client:
        states: list[str] = []
        job = await client.import_file(gallery, [b'{"id": "a"}\n'], "ndjson")
        with pytest.raises(JobFailed) as raised:
            await client.wait(job.id, lambda status: states.append(status.state))
        assert (raised.value.job.id, states[-1]) == (job.id, "failed")
