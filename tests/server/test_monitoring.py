"""Dashboard and alert rules use only metrics and labels that the server has, and lead to what exists."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from fastapi.testclient import TestClient
from prometheus_client.parser import text_string_to_metric_families

from models.card import Modality
from server.api.job_submission import UPLOAD_PATHS
from server.settings import Settings
from server.storage.api_keys import Scope
from tests.server.calls import add_people, search
from tests.server.conftest import Start
from tests.server.image_files import crop

ROOT = Path(__file__).resolve().parents[2]
FOLDER = ROOT / "deploy" / "monitoring"
RULES: list[dict[str, Any]] = yaml.safe_load((FOLDER / "alerts.yml").read_text("utf-8"))["groups"][0]["rules"]
DASHBOARD: dict[str, Any] = json.loads((FOLDER / "grafana" / "dashboards" / "vireid.json").read_text("utf-8"))
COMPOSE: dict[str, Any] = yaml.safe_load((ROOT / "docker-compose.yml").read_text("utf-8"))
KEYWORDS = {"le", "by", "sum"}


def expressions() -> Iterator[tuple[str, str]]:
    yield from ((rule["alert"], rule["expr"]) for rule in RULES)
    for panel in DASHBOARD["panels"]:
        yield from ((panel["title"], target["expr"]) for target in panel["targets"])


@pytest.fixture
def samples(start: Start) -> dict[str, set[str]]:
    """Labels of each sample of a server that has answered searches, with a key, and ended a job."""
    with start(auth="required") as client:
        key, secret = client.app.state.service.keys.create(  # type: ignore[attr-defined]
            "test", frozenset({Scope.ADMIN}), None
        )
        client.headers["Authorization"] = f"Bearer {secret}"
        fill(client)
        text = client.get("/metrics").text
        assert secret not in text
        assert f'key="{key.id}"' in text
    found: dict[str, set[str]] = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            found.setdefault(sample.name, set()).update(sample.labels)
    return found


def fill(client: TestClient) -> None:
    client.post("/v1/galleries", json={"name": "g"})
    add_people(client, "g", range(3), Modality.INFRARED)
    assert search(client, "g", [crop(1)], "visible").status_code == 200
    assert client.get("/v1/galleries/nowhere").status_code == 404
    job = client.post("/v1/galleries/g/calibrations", json={}).json()
    with client.stream("GET", f"/v1/jobs/{job['id']}/events") as events:  # ends with the job
        events.read()


def test_every_metric_and_label_of_dashboard_and_alerts_exists(samples: dict[str, set[str]]) -> None:
    for name, expression in expressions():
        metrics = set(re.findall(r"\bvireid_\w+", expression))
        assert metrics or "up{" in expression, name
        assert metrics <= samples.keys(), name
        labels = {label for metric in metrics for label in samples[metric]}
        used = set(re.findall(r'(\w+)(?:=~|!~|!=|=)"', expression)) - {"job"}
        for group in re.findall(r"by \(([\w, ]+)\)", expression):
            used |= set(group.split(", "))
        assert used <= labels, name


def test_the_dashboard_shows_every_metric_of_the_server(samples: dict[str, set[str]]) -> None:
    shown = " ".join(expression for _, expression in expressions())
    families = {re.sub(r"_(?:total|bucket|sum|count|created)$", "", name) for name in samples if "vireid_" in name}
    assert {name for name in families if name not in shown} - {"vireid_galleries"} == set()


def test_parentheses_of_every_expression_match() -> None:
    for name, expression in expressions():
        for left, right in ("()", "{}", "[]"):
            assert expression.count(left) == expression.count(right), name


def test_every_alert_says_what_to_do_and_names_sections_of_the_runbook_that_exist() -> None:
    headings = set(re.findall(r"^### (.+)$", (ROOT / "docs" / "operations.md").read_text("utf-8"), re.MULTILINE))
    for rule in RULES:
        action = rule["annotations"]["action"]
        assert rule["annotations"]["summary"]
        assert rule["labels"]["severity"] in {"page", "ticket"}
        assert set(re.findall(r'docs/operations\.md, "([^"]+)"', action)) <= headings, rule["alert"]


def test_compose_mounts_files_that_exist_and_scrapes_a_service_of_its_own() -> None:
    for name in ("prometheus", "grafana"):
        service = COMPOSE["services"][name]
        assert service["profiles"] == ["monitoring"]
        for volume in service["volumes"]:
            source = volume.partition(":")[0]
            assert (ROOT / source).exists() if source.startswith(".") else source in COMPOSE["volumes"], volume
    scraped = yaml.safe_load((FOLDER / "prometheus.yml").read_text("utf-8"))
    (target,) = scraped["scrape_configs"][0]["static_configs"][0]["targets"]
    assert target.partition(":")[0] in COMPOSE["services"]
    assert scraped["rule_files"] == ["/etc/prometheus/alerts.yml"]


def test_systemd_unit_sets_only_settings_that_exist_and_requires_keys() -> None:
    unit = (ROOT / "deploy" / "vireid.service").read_text("utf-8")
    settings = dict(re.findall(r"^Environment=VIREID_(\w+)=(.+)$", unit, re.MULTILINE))
    Settings(**{name.lower(): value for name, value in settings.items()})
    assert settings["AUTH"] == "required"
    assert f"StateDirectory={settings['DATA_DIR'].removeprefix('/var/lib/')}" in unit


def test_proxy_accepts_what_the_server_accepts() -> None:
    text = (ROOT / "deploy" / "Caddyfile").read_text("utf-8")
    sizes = {unit: int(size) for size, unit in re.findall(r"max_size (\d+)(MB|GB)", text)}
    assert sizes["MB"] * 10**6 <= Settings().max_body_bytes
    assert sizes["GB"] * 10**9 <= Settings().max_import_bytes
    (pattern,) = re.findall(r"path_regexp (\S+)", text)
    for path in ("/v1/galleries/g/imports", "/v1/galleries/g/restore", "/v1/galleries/g/items"):
        assert bool(re.search(pattern, path)) == bool(UPLOAD_PATHS.fullmatch(path))
