"""``vireid mcp``: its tools read and search, and change nothing."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from mcp import ClientSession, StdioServerParameters
from mcp.client.stdio import stdio_client
from mcp.server.fastmcp.exceptions import ToolError

from models.card import Modality
from tests.server.image_files import crop
from tests.vireid.test_commands import VIREID
from vireid.cli.mcp_server import make_server
from vireid.client import Client, ItemFields


@pytest.fixture
def filled(client: Client, gallery: str) -> str:
    items = [(crop(n, Modality.INFRARED), ItemFields(id=f"p{n}", modality="infrared", camera="c1")) for n in range(3)]
    client.add_items(gallery, items)
    return gallery


async def test_tools_read_and_search_and_say_that_they_only_read(client: Client, filled: str, tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(crop(1))
    server = make_server(client, tmp_path)
    tools = await server.list_tools()
    assert {tool.name for tool in tools} == {"list_galleries", "list_items", "get_item", "list_jobs", "search"}
    assert all(tool.annotations and tool.annotations.readOnlyHint for tool in tools)

    async def call(name: str, **arguments: Any) -> Any:
        _, structured = await server.call_tool(name, arguments)  # type: ignore[misc]
        return structured.get("result", structured)

    assert filled in [gallery["name"] for gallery in await call("list_galleries")]
    assert [item["id"] for item in await call("list_items", gallery=filled, filter={"ids": ["p1"]})] == ["p1"]
    assert (await call("get_item", gallery=filled, item="p2"))["camera"] == "c1"
    assert isinstance(await call("list_jobs"), list)
    assert len((await call("search", gallery=filled, item="p1"))["hits"]) == 2
    assert len((await call("search", gallery=filled, image="a.png", k=1))["hits"]) == 1


@pytest.mark.parametrize("name", ["../secret.png", "/etc/passwd", "link.png", "absent.png"])
async def test_images_outside_the_folder_are_not_read(client: Client, filled: str, tmp_path: Path, name: str) -> None:
    (tmp_path / "secret.png").write_bytes(crop(1))
    folder = tmp_path / "crops"
    folder.mkdir()
    (folder / "link.png").symlink_to(tmp_path / "secret.png")
    for images in (folder, None):
        with pytest.raises(ToolError, match=r"not a file of the folder|needs vireid mcp --images"):
            await make_server(client, images).call_tool("search", {"gallery": filled, "image": name})


async def test_the_command_speaks_the_protocol(url: str, filled: str) -> None:
    command = StdioServerParameters(command=VIREID[0], args=[*VIREID[1:], "mcp"], env={"VIREIDCLI_URL": url})
    async with stdio_client(command) as (read, write), ClientSession(read, write) as session:
        await session.initialize()
        answer = await session.call_tool("search", {"gallery": filled, "item": "p1"})
    assert json.loads(answer.content[0].text)["searched"] == 2  # type: ignore[union-attr]
