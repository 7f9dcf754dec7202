"""Tools for assistants by the Model Context Protocol: they read galleries, items and jobs, and search."""

from __future__ import annotations

from itertools import islice
from pathlib import Path
from typing import Any

from mcp.server.fastmcp import FastMCP
from mcp.types import ToolAnnotations
from pydantic import BaseModel

from vireid.client import Client, Filter, InvalidRequest

__all__ = ["make_server"]

_MOST = 100
_INSTRUCTIONS = (
    "Tools to search galleries of person crops. A hit is a hint, never an identification: with each one, state score, "
    "false match rate and expected false hits, and say when they are null, which means not calibrated. Never decide "
    "about a person by a score."
)
_READS = ToolAnnotations(readOnlyHint=True, destructiveHint=False, openWorldHint=False)


def make_server(client: Client, images: Path | None) -> FastMCP:
    """Return a server whose tools call ``client``; crops are read from the folder ``images`` only."""
    server = FastMCP("vireid", instructions=_INSTRUCTIONS)

    @server.tool(annotations=_READS)
    def list_galleries() -> list[dict[str, Any]]:
        """List the galleries that the key may use."""
        return _plain(client.galleries())

    @server.tool(annotations=_READS)
    def list_items(gallery: str, filter: Filter | None = None, limit: int = 20) -> list[dict[str, Any]]:
        """List items of a gallery that pass a filter, at most 100."""
        return _plain(islice(client.items(gallery, filter), min(limit, _MOST)))

    @server.tool(annotations=_READS)
    def get_item(gallery: str, item: str) -> dict[str, Any]:
        """Return the metadata of an item."""
        return client.item(gallery, item).model_dump(mode="json")

    @server.tool(annotations=_READS)
    def list_jobs(limit: int = 20) -> list[dict[str, Any]]:
        """List imports and other jobs, newest first, at most 100."""
        return _plain(islice(client.jobs(), min(limit, _MOST)))

    @server.tool(annotations=_READS)
    def search(
        gallery: str, item: str | None = None, image: str | None = None, filter: Filter | None = None, k: int = 10
    ) -> dict[str, Any]:
        """Find the person of an item of the gallery, or of an image file of the folder that the server was given."""
        crops = [] if image is None else [_crop(images, image)]
        return client.search(gallery, crops, item_id=item, filter=filter, k=min(k, _MOST)).model_dump(mode="json")

    return server


def _plain(entries: Any) -> list[dict[str, Any]]:
    return [entry.model_dump(mode="json") for entry in entries if isinstance(entry, BaseModel)]


def _crop(folder: Path | None, name: str) -> bytes:
    """Return the content of a file below ``folder``, after links are resolved."""
    if folder is None:
        raise InvalidRequest("search by image needs vireid mcp --images FOLDER; search by item instead")
    root = folder.resolve()
    path = (root / name).resolve()
    if not path.is_relative_to(root) or not path.is_file():
        raise InvalidRequest(f"{name} is not a file of the folder of images")
    return path.read_bytes()
