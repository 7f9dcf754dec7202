"""A server in a thread and a browser page, for tests that use the web page as a person does."""

from __future__ import annotations

import re
import shutil
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import uvicorn
from fastapi import FastAPI
from playwright.sync_api import Browser, ConsoleMessage, Page, sync_playwright

from server.app import create_app
from server.settings import Settings

__all__ = ["BROWSERS", "open_page", "run_browser", "run_server"]

BROWSERS = ("chromium", "chromium-browser", "google-chrome")
_PATIENCE_S = 60
_REJECTED = re.compile(r"Failed to load resource: the server responded with a status of (401|403|404|409|415|422)")
"""What Chromium logs for answers that a test provokes; everything else in the console is a defect of the page."""


@contextmanager
def run_server(data: Path, models: Path, **settings: object) -> Iterator[tuple[str, FastAPI]]:
    """Serve a data directory on a free port; yield the URL and the application."""
    app = create_app(Settings(data_dir=data, model_dir=models, device="cpu", threads=1, **settings))
    server = uvicorn.Server(uvicorn.Config(app, host="127.0.0.1", port=0, log_config=None, access_log=False))
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    deadline = time.monotonic() + _PATIENCE_S
    while not server.started:
        assert thread.is_alive(), "the server ended before it listened"
        assert time.monotonic() < deadline
        time.sleep(0.01)
    app.state.service.galleries.loader.loading.result(_PATIENCE_S)
    try:
        yield f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}", app
    finally:
        server.should_exit = True
        thread.join(_PATIENCE_S)


@contextmanager
def run_browser() -> Iterator[Browser]:
    """Start the system's Chromium; skip the test where there is none."""
    found = next(filter(None, map(shutil.which, BROWSERS)), None)
    if found is None:
        pytest.skip(f"no browser: install Debian's package chromium ({', '.join(BROWSERS)} are looked for)")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=found, args=["--no-sandbox", "--disable-dev-shm-usage"])
        yield browser
        browser.close()


@contextmanager
def open_page(
    browser: Browser, url: str, address: str = "", *, width: int = 1280, height: int = 900, theme: str = "light"
) -> Iterator[Page]:
    """Open the page; fail if it logs an error, violates its content policy or asks another server for anything."""
    faults: list[str] = []
    context = browser.new_context(viewport={"width": width, "height": height}, color_scheme=theme, locale="en-GB")
    page = context.new_page()
    page.set_default_timeout(20_000)
    page.on("pageerror", lambda error: faults.append(str(error)))
    page.on("console", lambda line: _is_fault(line) and faults.append(line.text))
    page.on("request", lambda request: request.url.startswith((url, "blob:")) or faults.append(request.url))
    page.goto(f"{url}/{address}")
    try:
        yield page
    finally:
        context.close()
    assert not faults, faults


def _is_fault(line: ConsoleMessage) -> bool:
    return line.type == "error" and not _REJECTED.match(line.text)
