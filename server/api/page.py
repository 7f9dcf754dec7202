"""The web page: static files without external resources."""

from __future__ import annotations

from collections.abc import Iterator
from importlib.resources import files
from importlib.resources.abc import Traversable

from fastapi import APIRouter, Response

__all__ = ["page_files", "router"]

_MEDIA_TYPES = {
    "html": "text/html; charset=utf-8",
    "css": "text/css; charset=utf-8",
    "js": "text/javascript; charset=utf-8",
    "svg": "image/svg+xml",
    "txt": "text/plain; charset=utf-8",
}

router = APIRouter(include_in_schema=False)


def page_files() -> dict[str, bytes]:
    """Return the files of the page by their path below the root, ``index.html`` as the root itself."""
    found = {name: file.read_bytes() for name, file in _walk(files("server.web"))}
    return {"" if name == "index.html" else name: content for name, content in sorted(found.items())}


def _walk(folder: Traversable, prefix: str = "") -> Iterator[tuple[str, Traversable]]:
    for entry in folder.iterdir():
        name = prefix + entry.name
        if entry.is_dir():
            yield from _walk(entry, f"{name}/")
        elif name.rpartition(".")[2] in _MEDIA_TYPES:
            yield name, entry


def _serve(path: str, content: bytes, media_type: str) -> None:
    @router.get(path, name=path)
    async def static() -> Response:
        return Response(content, media_type=media_type)


for _name, _content in page_files().items():
    _serve(f"/{_name}", _content, _MEDIA_TYPES[(_name or "index.html").rpartition(".")[2]])
