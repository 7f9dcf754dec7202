"""What jobs were making when they were cancelled, failed or forgotten goes."""

from __future__ import annotations

from collections.abc import Collection

from server.gallery.protocol import DRAFT, Store

__all__ = ["draft_of", "remove_unfinished"]


def draft_of(job: str) -> str:
    """The name of the gallery that a job makes."""
    return job + DRAFT


def remove_unfinished(store: Store, active: Collection[str]) -> None:
    """Remove the drafts and renewals of jobs that are not ``active``, bit by bit."""
    kept = set(map(draft_of, active))
    for draft in store.drafts():
        if draft not in kept:
            store.delete_gallery(draft)
    for name, renewal in store.renewals().items():
        if renewal.id not in active:
            store.end_renewal(name)
