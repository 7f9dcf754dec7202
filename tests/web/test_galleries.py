"""Galleries, jobs and administration with the web page, as a person does it."""

from __future__ import annotations

import tarfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, expect

from server.storage.api_keys import Scope
from tests.web.axe import find_violations
from tests.web.browser import open_page, run_server


def create(page: Page, name: str) -> None:
    page.get_by_role("link", name="Galleries").click()
    page.fill("#new-name", name)
    page.locator("#create").get_by_role("button", name="Create").click()
    page.locator("#add-files").wait_for(state="attached")


def test_gallery_is_created_filled_by_a_folder_browsed_and_erased(page: Page, crops: Path, tmp_path: Path) -> None:
    folder = tmp_path / "people"
    for identity in ("0001", "0002"):
        (folder / identity).mkdir(parents=True)
        for path in sorted((crops / "infrared" / identity).iterdir()):
            (folder / identity / path.name).write_bytes(path.read_bytes())
    (folder / "0002" / "broken.png").write_bytes(b"no image")
    create(page, "street")
    page.locator("#add-identity").check()
    page.fill("#add-camera", "c9")
    page.set_input_files("#add-folder", folder)
    expect(page.locator("#add-text")).to_have_text("9 of 9 crops · 8 added · 1 failed")
    expect(page.locator("#add-failures")).to_contain_text("people/0002/broken.png")
    expect(page.locator("#gallery-summary")).to_contain_text("8 items · 8 infrared · 1 camera · 2 identities")
    assert not find_violations(page)

    page.locator(".parts").get_by_role("link", name="Items").click()
    expect(page.locator("#items li")).to_have_count(8)
    page.fill("#filter-identity", "0002")
    page.keyboard.press("Enter")
    expect(page.locator("#items li")).to_have_count(4)
    page.locator("#items a").first.click()
    dialog = page.get_by_role("dialog")
    dialog.locator("[name=camera]").fill("c7")
    dialog.locator("[name=attributes]").fill("site=north\nfloor=2")
    dialog.get_by_role("button", name="Save").click()
    expect(dialog.get_by_text("Saved.")).to_be_visible()
    page.keyboard.press("Escape")
    expect(page.locator("#items")).to_contain_text("camera c7")

    page.locator("summary", has_text="Erase a person").click()
    page.fill("#erase-identity", "absent")
    page.get_by_role("button", name="Count the items").click()
    expect(page.locator(".erase")).to_contain_text("No item has the identity absent")
    page.fill("#erase-identity", "0002")
    page.get_by_role("button", name="Count the items").click()
    page.get_by_role("button", name="Delete 4 items").click()
    expect(page.locator(".erase")).to_contain_text("4 items, 4 embeddings and 4 thumbnails deleted")
    expect(page.locator("#gallery-summary")).to_contain_text("4 items")
    expect(page.locator(".empty")).to_contain_text("No item here")


def test_dropped_folder_is_walked(page: Page) -> None:
    create(page, "dropped")
    page.evaluate(_DROP_FOLDER)
    expect(page.locator("#add-text")).to_contain_text("1 of 1 crop")
    expect(page.locator("#gallery-summary")).to_contain_text("1 item")
    page.locator(".parts").get_by_role("link", name="Items").click()
    expect(page.locator("#items .who")).to_have_text("night-0007-crop")


_DROP_FOLDER = """async () => {
  const canvas = Object.assign(document.createElement("canvas"), { width: 64, height: 128 });
  canvas.getContext("2d").fillRect(8, 8, 20, 100);
  const blob = await new Promise((done) => canvas.toBlob(done, "image/png"));
  const file = new File([blob], "crop.png", { type: "image/png" });
  const leaf = { isFile: true, name: "crop.png", file: (done) => done(file) };
  const folder = (name, children) => ({ isDirectory: true, name, createReader: () => {
    const parts = [children, []];
    return { readEntries: (done) => done(parts.shift()) };
  } });
  const entry = folder("night", [folder("0007", [leaf])]);
  const items = [{ kind: "file", webkitGetAsEntry: () => entry }];
  const event = Object.assign(new Event("drop", { bubbles: true, cancelable: true }), { dataTransfer: { items } });
  document.querySelector("#add .drop").dispatchEvent(event);
}"""


def test_archive_is_imported_by_a_job(page: Page, crops: Path, tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "crops.tar", "w") as archive:
        archive.add(crops / "infrared" / "0001", "0001")
    create(page, "imported")
    page.set_input_files("#add-files", tmp_path / "crops.tar")
    page.locator(".note").get_by_role("link").click()
    expect(page.locator("#job")).to_contain_text("succeeded")
    expect(page.locator("#job")).to_contain_text("4 of 4")
    page.get_by_role("link", name="All jobs").click()
    expect(page.locator("#jobs")).to_contain_text("imported")


def test_gallery_gets_an_alias_a_description_and_is_deleted(page: Page) -> None:
    create(page, "short")
    page.locator(".parts").get_by_role("link", name="Settings").click()
    page.fill("[name=description]", "Entrance")
    page.fill("[name=retention]", "30")
    page.get_by_role("button", name="Save").click()
    expect(page.get_by_text("Saved.")).to_be_visible()
    page.fill("[name=alias]", "entrance")
    page.get_by_role("button", name="Add", exact=True).click()
    expect(page.locator(".lines")).to_contain_text(["entrance"])
    page.fill("#delete-gallery input", "short")
    page.locator("#delete-gallery").get_by_role("button").click()
    expect(page.locator("#gallery-list")).to_be_visible()
    expect(page.locator("#gallery-list")).not_to_contain_text("Entrance")


def test_name_that_is_taken_is_refused_with_a_reason(page: Page) -> None:
    page.get_by_role("link", name="Galleries").click()
    page.fill("#new-name", "people")
    page.locator("#create").get_by_role("button", name="Create").click()
    expect(page.get_by_role("alert")).to_contain_text("people")


@pytest.fixture(scope="module")
def guarded(zoo: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, str, str]]:
    """URL of a server that needs keys, an admin's secret and one for searches."""
    with run_server(tmp_path_factory.mktemp("guarded"), zoo, auth="required") as (url, app):
        keys = app.state.service.keys
        _, admin = keys.create("admin", [Scope.ADMIN], None)
        _, searcher = keys.create("desk", [Scope.SEARCH], None)
        yield url, admin, searcher


def sign_in(page: Page, secret: str) -> None:
    page.fill("#key", secret)
    page.get_by_role("button", name="Use key").click()


def test_admin_signs_in_makes_a_key_and_reads_the_audit_log(browser: Browser, guarded: tuple[str, str, str]) -> None:
    url, admin, _ = guarded
    with open_page(browser, url) as page:
        sign_in(page, "vireid_wrong")
        expect(page.get_by_text("The server rejected this key.")).to_be_visible()
        assert not find_violations(page)
        sign_in(page, admin)
        page.get_by_role("link", name="Keys").click()
        page.fill("#new-key [name=name]", "gate")
        page.locator("#new-key").get_by_role("button", name="Create").click()
        expect(page.locator("#secret code")).to_contain_text("vireid_")
        expect(page.locator("#keys")).to_contain_text("gate")
        page.get_by_role("link", name="Audit").click()
        expect(page.locator("#audit")).to_contain_text("key.create")
        page.click("#verify")
        expect(page.get_by_text("The hash chain is intact")).to_be_visible()
        page.get_by_role("button", name="Sign out").click()
        expect(page.locator("#key")).to_be_visible()


def test_key_without_the_scope_sees_no_keys(browser: Browser, guarded: tuple[str, str, str]) -> None:
    url, _, searcher = guarded
    with open_page(browser, url, "#/keys") as page:
        sign_in(page, searcher)
        expect(page.get_by_text("This needs a key with the scope admin.")).to_be_visible()
