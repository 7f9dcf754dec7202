"""Every view in both themes and at the width of a phone, a laptop and a large screen: no axe violation, no overflow."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from playwright.sync_api import Browser, expect

from tests.web.axe import find_violations
from tests.web.browser import open_page

pytestmark = pytest.mark.slow

VIEWS = {
    "search": "#/search",
    "hits": "#/search?gallery=people&item=visible-0003_c1_0&in=opposite",
    "list": "#/search?gallery=people&item=visible-0003_c1_0&in=opposite&layout=list",
    "timeline": "#/search?gallery=people&item=visible-0003_c1_0&layout=time"
    "&right=infrared-0003_c3_0&right=infrared-0003_c4_1",
    "groups": "#/search?gallery=people&item=visible-0003_c1_0&in=opposite&group=identity",
    "pair": "#/search?gallery=people&item=visible-0003_c1_0&in=opposite&open=infrared-0003_c3_0",
    "compare": "#/compare",
    "galleries": "#/galleries",
    "items": "#/galleries?name=people",
    "item": "#/galleries?name=people&item=visible-0003_c1_0",
    "add": "#/galleries?name=people&part=add",
    "duplicates": "#/galleries?name=people&part=duplicates&min_score=0.9",
    "settings": "#/galleries?name=people&part=settings",
    "jobs": "#/jobs",
    "models": "#/models",
    "status": "#/status",
    "keys": "#/keys",
    "audit": "#/audit",
    "absent gallery": "#/galleries?name=absent",
    "absent view": "#/absent",
}


@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize("width", [390, 1280, 2560])
def test_views_are_accessible_and_fit(browser: Browser, url: str, width: int, theme: str, tmp_path: Path) -> None:
    faults: dict[str, list[str]] = {}
    for name, address in VIEWS.items():
        with open_page(browser, url, address, width=width, theme=theme) as page:
            expect(page.locator("#service.ready")).to_be_visible()
            page.wait_for_load_state("networkidle")
            page.screenshot(path=tmp_path / f"{name}-{width}-{theme}.png")
            found = find_violations(page)
            if page.evaluate("document.documentElement.scrollWidth > innerWidth"):
                found.append("wider than the window")
            if found:
                faults[name] = found
    assert not faults, json.dumps(faults, indent=1)
