"""Removal of what jobs left half-made when they were cancelled, failed or lost."""

from __future__ import annotations

from collections.abc import Collection

from server.storage.protocol import DRAFT_SUFFIX, Store

__all__ = ["draft_of", "remove_leftovers"]


def draft_of(job: str) -> str:
    """Return the name of the draft gallery that a job builds."""
    return job + DRAFT_SUFFIX


def remove_leftovers(store: Store, active: Collection[str]) -> None:
    """Remove the drafts and unfinished reembeddings of jobs that are not ``active``, in small transactions."""
    kept = set(map(draft_of, active))
    for draft in store.drafts():
        if draft not in kept:
            store.delete_gallery(draft)
    for name, renewal in store.reembeddings().items():
        if renewal.id not in active:
            store.end_reembedding(name)
