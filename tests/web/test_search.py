"""Search with the web page, as a person does it: from a picture to marked hits."""

from __future__ import annotations

import re
from pathlib import Path

from playwright.sync_api import Page, expect

from tests.web.axe import find_violations


def search_with(page: Page, *files: Path) -> None:
    page.set_input_files("#query-files", list(files))
    expect(page.locator("#query-crops small span")).to_have_count(len(files))
    page.click("#go")
    expect(page.locator(".hit").first).to_be_visible()


def test_from_a_picture_to_marked_hits(page: Page, crops: Path) -> None:
    expect(page.get_by_role("heading", name="Search by image")).to_be_visible()
    search_with(page, crops / "visible/0003/0003_c1_0.png")
    first = page.locator(".hit").first
    expect(first.locator(".modality")).to_have_text("infrared")
    expect(first.locator(".who")).to_have_text("0003")
    expect(first.locator(".rate")).to_contain_text("A drawing: no error rate is known")
    expect(page.locator(".summary")).to_contain_text("visible query against 24 items of people")
    assert not find_violations(page)

    page.locator(".hit a.thumbnail").first.click()
    expect(page.get_by_role("dialog")).to_contain_text("infrared-0003")
    expect(page.locator("dialog img")).to_have_count(2)
    page.keyboard.press("ArrowRight")
    expect(page.get_by_role("dialog", name="Hit 2 beside the query")).to_be_visible()
    page.keyboard.press("Escape")
    expect(page.get_by_role("dialog")).to_have_count(0)
    expect(page.locator(".hit").first).to_be_visible()

    first.get_by_role("button", name="Right").click()
    expect(page.locator(".tools")).to_contain_text("1 marked right, 0 marked wrong")
    page.locator(".hit").nth(5).get_by_role("button", name="Wrong").click()
    page.click("#search-marks")
    expect(page.locator(".summary")).to_contain_text("re-weighted by 1 hit marked right and 1 marked wrong")
    expect(page.locator(".hit .rate").first).to_have_text("Re-weighted query: no error rate is known")
    page.get_by_role("button", name="Timeline").click()
    expect(page.locator(".timeline circle")).to_have_count(1)
    page.go_back()
    expect(page.locator(".tools")).to_contain_text("1 marked right, 1 marked wrong")
    searched = page.url
    first.get_by_role("button", name="Search with this").click()
    expect(page.locator(".trail")).to_contain_text("pictures")
    expect(page.locator(".hit").first.locator(".modality")).to_have_text("visible")
    page.go_back()
    expect(page.locator(".tools")).to_contain_text("1 marked right")
    assert page.url == searched
    page.go_forward()
    expect(page.locator(".trail")).to_be_visible()


def test_box_cuts_a_person_out_of_a_frame(page: Page, crops: Path, tmp_path: Path) -> None:
    from PIL import Image

    frame = Image.new("RGB", (320, 160), (90, 120, 90))
    frame.paste(Image.open(crops / "visible/0003/0003_c1_0.png"), (40, 16))
    frame.paste(Image.open(crops / "visible/0002/0002_c1_0.png"), (200, 16))
    frame.save(tmp_path / "frame.png")
    page.set_input_files("#query-files", [tmp_path / "frame.png"])
    page.get_by_text("This looks like a whole frame").wait_for()
    page.locator(".note").get_by_role("button", name="Draw boxes in frame.png").click()
    area = page.locator(".boxes").bounding_box()
    assert area is not None
    for left in (40, 200):
        scale = area["width"] / 320
        page.mouse.move(area["x"] + left * scale, area["y"] + 16 * scale)
        page.mouse.down()
        page.mouse.move(area["x"] + (left + 64) * scale, area["y"] + 144 * scale, steps=3)
        page.mouse.up()
    expect(page.locator(".box")).to_have_count(2)
    page.get_by_role("button", name="Remove the last box").click()
    page.get_by_role("button", name="Use this box").click()
    expect(page.locator("#query-crops small span")).to_have_text("visible")
    page.click("#go")
    expect(page.locator(".hit .who").first).to_have_text("0003")


def test_filters_are_in_the_address_and_a_reload_keeps_them(page: Page, crops: Path) -> None:
    search_with(page, crops / "visible/0001/0001_c1_0.png")
    page.locator("summary", has_text="Filters and options").click()
    page.get_by_role("checkbox", name="c3").check()
    page.get_by_role("button", name="Last hour").click()
    page.fill("#identities", "0001, 0002")
    page.fill("#attributes", "source=drawn")
    page.fill("#min-score", "-1")
    page.locator("#group").check()
    page.click("#go")
    expect(page.locator("h3.group").first).to_contain_text("0001")
    expect(page.locator(".hit")).to_have_count(4)
    assert {"cam=c3", "who=0001%2C+0002", "group=identity", "min=-1"} <= set(re.split("[?&]", page.url))
    page.reload()
    expect(page.get_by_role("heading", name="The pictures of this search are no longer here")).to_be_visible()
    expect(page.locator("#identities")).to_have_value("0001, 0002")
    expect(page.get_by_role("checkbox", name="c3")).to_be_checked()


def test_different_people_among_the_query_pictures_show_a_low_score(page: Page, crops: Path) -> None:
    page.set_input_files("#query-files", [crops / "visible/0001/0001_c1_0.png", crops / "visible/0004/0004_c1_0.png"])
    expect(page.get_by_text(re.compile("Lowest score between|may show different people"))).to_be_visible()


def test_more_hits_come_on_scrolling(page: Page, crops: Path) -> None:
    search_with(page, crops / "visible/0001/0001_c1_0.png")
    page.locator("#search").get_by_text("All", exact=True).click()
    page.click("#go")
    expect(page.locator(".summary")).to_contain_text("48 items")
    page.mouse.move(800, 500)
    page.mouse.wheel(0, 20_000)
    expect(page.locator(".hit")).to_have_count(48)


def test_file_that_is_no_image_is_named(page: Page, tmp_path: Path) -> None:
    (tmp_path / "notes.png").write_text("no image")
    page.set_input_files("#query-files", [tmp_path / "notes.png"])
    expect(page.locator("#query-crops .broken")).to_be_visible()
    page.click("#go")
    expect(page.get_by_role("alert")).to_contain_text("notes.png")


def test_pictures_are_compared(page: Page, url: str, crops: Path) -> None:
    page.goto(f"{url}/#/compare")
    page.set_input_files("#compare-first", [crops / "visible/0001/0001_c1_0.png"])
    page.set_input_files("#compare-second", [crops / "infrared/0001/0001_c3_0.png"])
    page.click("#compare")
    expect(page.locator(".outcome")).to_contain_text("visible / infrared")
    assert not find_violations(page)


def test_dialog_stays_modal_while_more_items_come(page: Page, url: str) -> None:
    page.set_viewport_size({"width": 2560, "height": 1440})
    page.goto(f"{url}/#/search?gallery=people&in=all&item=visible-0003_c1_0&open=infrared-0003_c3_0")
    expect(page.locator(".hit")).to_have_count(47)
    assert page.evaluate("document.querySelector('dialog').matches(':modal')")


def test_hits_come_into_view_on_a_phone(page: Page, url: str) -> None:
    page.set_viewport_size({"width": 390, "height": 844})
    page.goto(f"{url}/#/search?gallery=people&in=all&item=visible-0003_c1_0")
    expect(page.locator(".summary h2")).to_be_in_viewport()
