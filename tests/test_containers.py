"""Checks of the container files. deploy/verify_image.sh builds and runs the image itself."""

from __future__ import annotations

import json
import os
import re
import socket
import subprocess
import sys
import threading
import tomllib
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path, PurePosixPath
from typing import Any

import pytest
import yaml

from server.environment import PREFIX, unknown_names
from server.settings import Settings

ROOT = Path(__file__).resolve().parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))
COMPOSE: dict[str, Any] = yaml.safe_load((ROOT / "docker-compose.yml").read_text("utf-8"))
SERVICES: dict[str, dict[str, Any]] = {
    name: service for name, service in COMPOSE["services"].items() if "build" in service
}
"""The services that run vireid; those of the profile ``monitoring`` are checked in ``tests.server.test_monitoring``."""
SCRIPT = ROOT / "deploy" / "verify_image.sh"


def stages() -> list[list[tuple[str, str]]]:
    """Return (INSTRUCTION, rest) of each line of the Dockerfile by stage; lines before the first FROM are stage 0."""
    lines = [line for line in (ROOT / "Dockerfile").read_text("utf-8").splitlines() if not line.startswith("#")]
    found: list[list[tuple[str, str]]] = [[]]
    for line in re.sub(r"\\\n\s*", "", "\n".join(lines)).splitlines():
        if line.strip():
            word, _, rest = line.partition(" ")
            if word == "FROM":
                found.append([])
            found[-1].append((word, rest.strip()))
    return found


def final_stage(word: str) -> list[str]:
    return [rest for found, rest in stages()[-1] if found == word]


def final_stage_pairs(word: str) -> dict[str, str]:
    """Return the names and values that ENV or LABEL sets in the final stage."""
    found = re.findall(r'([\w.]+)=("[^"]*"|\S+)', " ".join(final_stage(word)))
    return {name: value.strip('"') for name, value in found}


# --- build context ------------------------------------------------------------------------------------------------


def ignored(path: str) -> bool:
    """Return whether .dockerignore excludes ``path``: the last pattern that matches it or a parent folder decides."""
    excluded = False
    for line in (ROOT / ".dockerignore").read_text("utf-8").splitlines():
        if line and not line.startswith("#"):
            pattern = re.escape(line.removeprefix("!")).replace(r"\*\*/", "(.*/)?").replace(r"\*", "[^/]*")
            if any(re.fullmatch(pattern, str(part)) for part in (path, *PurePosixPath(path).parents)):
                excluded = not line.startswith("!")
    return excluded


@pytest.mark.parametrize(
    "path",
    [
        ".git/config",
        ".venv/bin/python",
        ".env",
        ".ci/run",
        "data/crop.png",
        "runs/1/checkpoint.pt",
        "vireid-data/vireid.db",
        "tests/test_import_rules.py",
        "benchmarks/search.py",
        "deploy/verify_image.sh",
        "secret.pem",
        "models/__pycache__/card.cpython-311.pyc",
        "requirements/notes.txt",
    ],
)
def test_unneeded_files_are_excluded_from_the_build(path: str) -> None:
    assert ignored(path)


def test_packages_models_and_lock_files_are_in_the_build_context() -> None:
    packages = PROJECT["tool"]["hatch"]["build"]["targets"]["wheel"]["packages"]
    needed = [path for package in packages for path in (ROOT / package).rglob("*") if "__pycache__" not in path.parts]
    needed += [*(ROOT / "requirements").glob("*.lock"), ROOT / "models/zoo/mtrl-lite/model.onnx"]
    needed += [ROOT / name for name in ("pyproject.toml", PROJECT["project"]["readme"], "LICENSE")]
    assert not [path for path in needed if ignored(path.relative_to(ROOT).as_posix())]


def test_final_stage_copies_only_the_environment() -> None:
    assert final_stage("COPY") == ["--from=build /opt/vireid /opt/vireid"]


# --- image ---------------------------------------------------------------------------------------------------


def test_build_downloads_nothing_by_url() -> None:
    assert "ADD" not in {word for stage in stages() for word, _ in stage}
    for name in ("Dockerfile", "docker-compose.yml", ".dockerignore", "deploy/verify_image.sh"):
        text = (ROOT / name).read_text("utf-8").replace("postgresql+psycopg://", "")  # a setting of the server
        assert "://" not in text, name


def test_dependencies_are_installed_by_hash_from_lock_files() -> None:
    (install,) = [rest for word, rest in stages()[1] if word == "RUN" and "-r requirements.lock" in rest]
    assert "--require-hashes" in install
    for service in SERVICES.values():
        assert (ROOT / "requirements" / f"{service['build']['args']['EXTRA']}.lock").is_file()


def test_both_stages_take_the_digest_of_the_base_image() -> None:
    images = [rest.split(" AS ")[0] for stage in stages() for word, rest in stage if word == "FROM"]
    assert images == ["${BASE}${DIGEST:+@${DIGEST}}"] * 2
    for service in SERVICES.values():
        assert service["build"]["args"]["DIGEST"] == "${DIGEST:-}"


def test_image_holds_a_bill_of_materials_made_by_locked_tools() -> None:
    (command,) = [rest for word, rest in stages()[1] if word == "RUN" and "cyclonedx-py" in rest]
    assert "--require-hashes -r requirements/sbom.lock" in command
    assert "--output-file /opt/vireid/sbom.cdx.json" in command
    assert not ignored("requirements/sbom.lock")
    assert "cyclonedx-bom==" in (ROOT / "requirements" / "sbom.lock").read_text("utf-8")


@pytest.mark.parametrize("extra", ["cpu", "gpu"])
def test_bill_of_materials_names_every_locked_package_with_its_hashes(extra: str, tmp_path: Path) -> None:
    lock, out = ROOT / "requirements" / f"{extra}.lock", tmp_path / "sbom.cdx.json"
    command = ["-m", "cyclonedx_py", "requirements", str(lock), "--pyproject", str(ROOT / "pyproject.toml")]
    subprocess.run(
        [sys.executable, *command, "--output-reproducible", "--output-file", str(out)], check=True, capture_output=True
    )
    found = json.loads(out.read_text("utf-8"))
    assert found["bomFormat"] == "CycloneDX"
    assert found["metadata"]["component"]["name"] == PROJECT["project"]["name"]
    locked = set(re.findall(r"^([\w.-]+)==([\w.+-]+)", lock.read_text("utf-8"), re.MULTILINE))
    assert {(one["name"], one["version"]) for one in found["components"]} == locked
    assert all(one["externalReferences"][0]["hashes"] for one in found["components"])


def test_user_is_numeric_and_not_root() -> None:
    (user,) = final_stage("USER")
    assert re.fullmatch(r"[1-9]\d*:[1-9]\d*", user), "with a number, a cluster can check that it is not root"


def test_command_is_process_1_without_a_shell() -> None:
    (entry,), (command,) = final_stage("ENTRYPOINT"), final_stage("CMD")
    assert [*json.loads(entry), *json.loads(command)] == ["vireid", "serve"]
    assert entry.removeprefix("[").removesuffix("]").strip('"') in PROJECT["project"]["scripts"]


def test_labels_match_the_project_version_and_licence() -> None:
    labels = final_stage_pairs("LABEL")
    assert labels["org.opencontainers.image.version"] == PROJECT["project"]["version"]
    assert labels["org.opencontainers.image.licenses"] == PROJECT["project"]["license"]


def test_image_and_service_settings_are_valid_and_require_keys(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for service in SERVICES.values():
        values = final_stage_pairs("ENV") | service["environment"]
        assert not unknown_names(values, Settings.model_fields)
        with monkeypatch.context() as environment:
            for name in [name for name in os.environ if name.startswith(PREFIX)]:
                environment.delenv(name)
            for name in [name for name in values if name.startswith(PREFIX)]:
                environment.setenv(name, values[name])
            settings = Settings()
        assert settings.auth_required
        assert [str(settings.data_dir)] == final_stage("VOLUME")


@contextmanager
def health_server(status: int, host: str = "127.0.0.1") -> Iterator[int]:
    """Run a server that answers /healthz with ``status``; yields its port."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(status if self.path == "/healthz" else 404)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    class Server(HTTPServer):
        address_family = socket.AF_INET6 if ":" in host else socket.AF_INET

    with Server((host, 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield server.server_port
        finally:
            server.shutdown()
            thread.join()


def health_check(port: int, **settings: str) -> int:
    (check,) = final_stage("HEALTHCHECK")
    python, *arguments = json.loads(check[check.index("CMD") + len("CMD") :])
    assert python == "python3"
    environment = {**os.environ, "VIREID_PORT": str(port), "http_proxy": "http://127.0.0.1:9"} | settings
    return subprocess.run([sys.executable, *arguments], env=environment, capture_output=True, timeout=20).returncode


@pytest.mark.parametrize(("status", "code"), [(200, 0), (503, 1)])
def test_health_check_follows_the_status(status: int, code: int) -> None:
    with health_server(status) as port:
        assert health_check(port) == code


@pytest.mark.parametrize(
    ("listening", "setting"),
    [("127.0.0.1", "0.0.0.0"), ("127.0.0.1", "::"), ("::1", "::"), ("::1", "::1"), ("127.0.0.2", "127.0.0.2")],
)
def test_health_check_finds_the_server_at_any_address(listening: str, setting: str) -> None:
    with health_server(200, listening) as port:
        assert health_check(port, VIREID_HOST=setting) == 0


def test_health_check_ignores_a_port_set_by_a_service_link() -> None:
    with health_server(200) as port:
        assert health_check(port, VIREID_PORT=f"tcp://10.0.0.12:{port}", VIREID_HOST="127.0.0.1") == 1, "default port"


def test_health_check_fails_if_nothing_listens() -> None:
    with health_server(200) as port:
        pass
    assert health_check(port) == 1


# --- services ------------------------------------------------------------------------------------------------


def test_default_profile_starts_only_the_cpu_service() -> None:
    profiles = {name: service.get("profiles", []) for name, service in COMPOSE["services"].items()}
    assert profiles == {
        "cpu": [],
        "gpu": ["gpu"],
        "postgres-cpu": ["postgres"],
        "database": ["postgres"],
        "prometheus": ["monitoring"],
        "grafana": ["monitoring"],
    }
    extras = {name: service["build"]["args"]["EXTRA"] for name, service in SERVICES.items()}
    assert extras == {"cpu": "cpu", "gpu": "gpu", "postgres-cpu": "cpu"}


def test_gpu_service_requires_an_nvidia_gpu() -> None:
    (device,) = SERVICES["gpu"]["deploy"]["resources"]["reservations"]["devices"]
    assert (device["driver"], device["capabilities"]) == ("nvidia", ["gpu"])
    assert SERVICES["gpu"]["environment"]["VIREID_DEVICE"] == "cuda"


@pytest.mark.parametrize("name", SERVICES)
def test_services_are_confined_and_persist_their_data(name: str) -> None:
    service = SERVICES[name]
    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert [entry.split(":")[0] for entry in service["tmpfs"]] == ["/tmp"]
    assert service["restart"] == "unless-stopped"
    assert service["mem_limit"]
    assert 100 <= service["pids_limit"] <= 4096
    (mount,) = service["volumes"]
    volume, _, folder = mount.partition(":")
    assert volume in COMPOSE["volumes"]
    assert [folder] == final_stage("VOLUME")


@pytest.mark.parametrize("name", SERVICES)
def test_services_are_published_on_loopback_by_default(name: str) -> None:
    (published,) = SERVICES[name]["ports"]
    default = re.sub(r"\$\{\w+:-([^}]*)\}", r"\1", published)
    port = final_stage_pairs("ENV")["VIREID_PORT"]
    assert default == f"127.0.0.1:8000:{port}"
    assert final_stage("EXPOSE") == [port]


@pytest.mark.parametrize("name", SERVICES)
def test_build_arguments_are_declared(name: str) -> None:
    declared = {rest.split("=")[0] for stage in stages() for word, rest in stage if word == "ARG"}
    assert SERVICES[name]["build"]["args"].keys() <= declared


# --- verification script ----------------------------------------------------------------------------


def test_verification_script_runs_the_image_like_the_services() -> None:
    subprocess.run(["bash", "-n", str(SCRIPT)], check=True)
    assert os.access(SCRIPT, os.X_OK)
    text = SCRIPT.read_text("utf-8")
    (temporary,) = SERVICES["cpu"]["tmpfs"]
    for option in ("--read-only", "--cap-drop ALL", "--security-opt no-new-privileges", f"--tmpfs {temporary}"):
        assert option in text, option
