"""The files of the page: their weight, licences and rules."""

from __future__ import annotations

import re

import pytest
from playwright.sync_api import Page

from server.api.page import page_files

FILES = page_files()
OWN = [name for name in FILES if name.endswith(".js") and not name.startswith("vendor/")]


def test_page_weighs_at_most_300_kb() -> None:
    assert sum(map(len, FILES.values())) <= 300_000


def test_every_library_has_its_licence() -> None:
    assert {name for name in FILES if name.startswith("vendor/")} == {
        "vendor/htm-preact.js",
        "vendor/LICENSE.htm.txt",
        "vendor/LICENSE.preact.txt",
    }


@pytest.mark.parametrize("name", OWN)
def test_modules_import_only_files_of_the_page_and_write_no_markup(name: str) -> None:
    text = FILES[name].decode()
    assert not re.search(r"\b(?:innerHTML|outerHTML|dangerouslySetInnerHTML|eval|document\.write)\b", text)
    folder = name.rpartition("/")[0]
    for target in re.findall(r'from "([^"]+)"', text):
        parts = [*folder.split("/"), *target.split("/")] if folder else target.split("/")
        while ".." in parts:
            at = parts.index("..")
            del parts[at - 1 : at + 1]
        assert "/".join(part for part in parts if part != ".") in FILES, target


def test_texts_that_the_page_names_are_those_of_the_table(page: Page) -> None:
    named = {name for file in OWN for name in re.findall(r"\bT\.(\w+)", FILES[file].decode())}
    table = set(page.evaluate("async () => Object.keys((await import('./strings.js')).T)"))
    by_value = {"right", "wrong"}  # chosen by the value of a field
    assert named - table == set()
    assert table - named - by_value == set()
