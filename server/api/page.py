"""The web page: static files without external resources."""

from __future__ import annotations

from importlib.resources import files

from fastapi import APIRouter, Response

__all__ = ["router"]

_FILES = {
    "/": ("index.html", "text/html; charset=utf-8"),
    "/page.css": ("page.css", "text/css; charset=utf-8"),
    "/page.js": ("page.js", "text/javascript; charset=utf-8"),
    "/icon.svg": ("icon.svg", "image/svg+xml"),
}

router = APIRouter(include_in_schema=False)


def _serve(path: str, name: str, media_type: str) -> None:
    @router.get(path, name=name)
    async def static() -> Response:
        return Response(content, media_type=media_type)

    content = files("server.web").joinpath(name).read_bytes()


for _path, (_name, _media_type) in _FILES.items():
    _serve(_path, _name, _media_type)
