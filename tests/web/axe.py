"""Accessibility checks with axe-core."""

from __future__ import annotations

from pathlib import Path

from playwright.sync_api import Page

__all__ = ["find_violations"]

_AXE = (Path(__file__).parent / "vendor" / "axe.min.js").read_text("utf-8")


def find_violations(page: Page) -> list[str]:
    """Return what axe-core finds wrong with the page as it is: the rule and the first elements that break it."""
    page.evaluate(_AXE)
    found = page.evaluate("async () => (await axe.run(document)).violations")
    return [f"{one['id']}: {[node['html'] for node in one['nodes']][:3]}" for one in found]
