from __future__ import annotations

from pathlib import Path

import pytest
from pydantic import ValidationError

from server.settings import Settings
from server.settings_page import page


def test_an_unknown_name_is_refused_with_the_nearest_known_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VIREID_MODLE_DIR", "/somewhere")
    with pytest.raises(ValidationError, match=r"unknown setting VIREID_MODLE_DIR; .* VIREID_MODEL_DIR"):
        Settings()


def test_the_environment_sets_what_it_names(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VIREID_PORT", "9001")
    monkeypatch.setenv("VIREID_DEVICE", "cpu")
    assert (Settings().port, Settings().device) == (9001, "cpu")
    monkeypatch.setenv("VIREID_DEVICE", "tpu")
    with pytest.raises(ValidationError):
        Settings()


def test_import_roots_are_separated_by_colons(monkeypatch: pytest.MonkeyPatch) -> None:
    assert Settings().import_roots == ()
    monkeypatch.setenv("VIREID_IMPORT_ROOTS", "/data/one:/data/two")
    assert Settings().import_roots == (Path("/data/one"), Path("/data/two"))
    monkeypatch.setenv("VIREID_IMPORT_ROOTS", "")
    assert Settings().import_roots == ()


@pytest.mark.parametrize("host", ["127.0.0.1", "127.0.0.53", "::1", "localhost"])
def test_a_loopback_address_needs_no_keys_unless_asked(host: str) -> None:
    assert not Settings(host=host).auth_required
    assert not Settings(host=host, auth="off").auth_required
    assert Settings(host=host, auth="required").auth_required


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.168.1.7", "re-id.example", "localhost.example"])
def test_any_other_address_needs_keys_and_off_is_refused(host: str) -> None:
    assert Settings(host=host).auth_required
    with pytest.raises(ValidationError, match="VIREID_AUTH=off is refused"):
        Settings(host=host, auth="off")


def test_a_full_request_must_fit_the_images_in_flight() -> None:
    with pytest.raises(ValidationError, match="VIREID_MAX_IN_FLIGHT is 3"):
        Settings(max_images=4, max_in_flight=3)


def test_every_setting_says_what_it_is() -> None:
    assert all(field.description for field in Settings.model_fields.values())


def test_the_page_of_settings_is_that_of_the_settings() -> None:
    """After a change on purpose: ``make docs``."""
    assert (Path(__file__).parents[2] / "docs" / "settings.md").read_text("utf-8") == page()
