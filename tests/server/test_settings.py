from __future__ import annotations

from pathlib import Path

import pytest
from pydantic import ValidationError

from server.environment import unknown_names
from server.settings import Settings
from server.settings_page import page


def test_misspelt_setting_is_refused_with_the_nearest_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VIREID_MODLE_DIR", "/somewhere")
    with pytest.raises(ValidationError, match=r"unknown setting VIREID_MODLE_DIR; .* VIREID_MODEL_DIR"):
        Settings()


@pytest.mark.parametrize(
    "name",
    ["MODLE_DIR", "DATADIR", "PROT", "HSOT", "THREAD", "MAX_IMAGE", "max_pixel", "GPU_MEM", "IMPORT_ROOT", "DEVISE"],
)
def test_near_misses_of_settings_are_refused(name: str) -> None:
    with pytest.raises(ValueError, match="did you mean"):
        unknown_names({f"VIREID_{name}": "1"}, Settings.model_fields)


@pytest.mark.parametrize(
    "variables",
    [
        {"SERVICE_HOST": "10.0.0.12", "SERVICE_PORT": "8000", "SERVICE_PORT_HTTP": "8000"},
        {"PORT_8000_TCP": "tcp://10.0.0.12:8000", "PORT_8000_TCP_ADDR": "10.0.0.12", "PORT_8000_TCP_PROTO": "tcp"},
        {"PORT": "tcp://10.0.0.12:8000", "MODEL_PORT": "tcp://10.0.0.13:80", "MODEL_SERVICE_HOST": "10.0.0.13"},
        {"PORT_53_UDP": "udp://10.0.0.12:53", "PORT_53_UDP_PORT": "53", "DATA_DIR_PORT_80_TCP": "tcp://10.0.0.9:80"},
        {"NAME": "/web/vireid", "ENV_PATH": "/usr/bin", "HOST_PORT": "8000"},
        {"KEY": "vireid_x", "URL": "http://127.0.0.1:8000", "IMAGE": "vireid:cpu", "TAG": "1", "LOG_LEVEL": "info"},
    ],
)
def test_variables_of_service_links_and_shared_env_files_are_ignored(
    variables: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(f"VIREID_{name}", value)
    assert Settings().port == 8000


def test_ignored_names_are_listed() -> None:
    variables = {"VIREID_URL": "x", "VIREID_PORT": "1", "vireid_key": "x", "PATH": "x"}
    assert unknown_names(variables, Settings.model_fields) == ["VIREID_KEY", "VIREID_URL"]


def test_empty_and_blank_values_count_as_unset(monkeypatch: pytest.MonkeyPatch) -> None:
    for field in Settings.model_fields:
        monkeypatch.setenv(f"VIREID_{field.upper()}", "")
    assert Settings() == Settings.model_construct(**Settings().model_dump())
    assert (Settings().port, Settings().model, Settings().auth, Settings().import_roots) == (8000, None, None, ())
    monkeypatch.setenv("VIREID_THREADS", "  ")
    monkeypatch.setenv("VIREID_AUTH", '""')
    assert (Settings().threads, Settings().auth) == (None, None)


def test_blanks_and_quotes_around_values_are_removed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VIREID_AUTH", '"required"')
    monkeypatch.setenv("VIREID_DEVICE", "cpu\r")
    monkeypatch.setenv("VIREID_PORT", " 9000 ")
    assert (Settings().auth, Settings().device, Settings().port) == ("required", "cpu", 9000)


@pytest.mark.parametrize(
    ("value", "path"), [("", ""), ("/", ""), ("vireid", "/vireid"), ("/vireid/", "/vireid"), ("/a/b", "/a/b")]
)
def test_root_path_is_normalised(value: str, path: str) -> None:
    assert Settings(root_path=value).root_path == path


@pytest.mark.parametrize("value", ["http://host/vireid", "/a/../b", "/a b", "/a?b", "/a\nb"])
def test_invalid_root_path_is_refused(value: str) -> None:
    with pytest.raises(ValidationError, match="expected a path"):
        Settings(root_path=value)


def test_environment_variables_set_settings(monkeypatch: pytest.MonkeyPatch) -> None:
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
def test_keys_are_optional_on_loopback(host: str) -> None:
    assert not Settings(host=host).auth_required
    assert not Settings(host=host, auth="off").auth_required
    assert Settings(host=host, auth="required").auth_required


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.168.1.7", "re-id.example", "localhost.example"])
def test_keys_are_required_on_other_addresses(host: str) -> None:
    assert Settings(host=host).auth_required
    with pytest.raises(ValidationError, match="VIREID_AUTH=off is refused"):
        Settings(host=host, auth="off")


def test_max_in_flight_must_allow_a_full_request() -> None:
    with pytest.raises(ValidationError, match="VIREID_MAX_IN_FLIGHT is 3"):
        Settings(max_images=4, max_in_flight=3)


def test_every_setting_has_a_description() -> None:
    assert all(field.description for field in Settings.model_fields.values())


def test_settings_page_is_up_to_date() -> None:
    """Run ``make docs`` after changing a setting."""
    assert (Path(__file__).parents[2] / "docs" / "settings.md").read_text("utf-8") == page()
