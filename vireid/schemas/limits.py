"""Limits of the server that clients must respect."""

from __future__ import annotations

from pydantic import Field

from vireid.schemas.base import Schema

__all__ = ["Limits"]


class Limits(Schema):
    """Limits of one request."""

    max_images: int = Field(description="Images in one request.")
    max_query_images: int = Field(description="Images of one search.")
    max_image_bytes: int
    max_body_bytes: int
    max_import_bytes: int = Field(description="Bytes of the body of an import.")
    max_pixels: int = Field(description="Width times height of one image.")
    max_in_flight: int = Field(
        description="Permits for images in work; an image needs one, and one more per 524,288 pixels. Beyond it: 429."
    )
    max_k: int = Field(description="Maximum `k` of a search.")
    max_searches: int = Field(description="Searches in one request.")
    max_page: int = Field(description="Maximum `limit` of a list.")
    formats: tuple[str, ...] = Field(description="Accepted image formats.")
