"""What the container files promise, read from the files; deploy/verify_image.sh builds and runs the image itself."""

from __future__ import annotations

import json
import os
import re
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

from server.settings import PREFIX, Settings, refuse_unknown

ROOT = Path(__file__).resolve().parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))
COMPOSE: dict[str, Any] = yaml.safe_load((ROOT / "docker-compose.yml").read_text("utf-8"))
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]
SCRIPT = ROOT / "deploy" / "verify_image.sh"


def stages() -> list[list[tuple[str, str]]]:
    """(INSTRUCTION, rest) of each line of the Dockerfile, by stage; what stands before the first FROM is stage 0."""
    lines = [line for line in (ROOT / "Dockerfile").read_text("utf-8").splitlines() if not line.startswith("#")]
    found: list[list[tuple[str, str]]] = [[]]
    for line in re.sub(r"\\\n\s*", "", "\n".join(lines)).splitlines():
        if line.strip():
            word, _, rest = line.partition(" ")
            if word == "FROM":
                found.append([])
            found[-1].append((word, rest.strip()))
    return found


def of_the_image(word: str) -> list[str]:
    return [rest for found, rest in stages()[-1] if found == word]


def pairs(word: str) -> dict[str, str]:
    """What ENV or LABEL of the shipped stage sets."""
    found = re.findall(r'([\w.]+)=("[^"]*"|\S+)', " ".join(of_the_image(word)))
    return {name: value.strip('"') for name, value in found}


# --- what goes in ------------------------------------------------------------------------------------------------


def ignored(path: str) -> bool:
    """Whether .dockerignore keeps ``path`` out: the last pattern wins that fits it or a folder above it."""
    verdict = False
    for line in (ROOT / ".dockerignore").read_text("utf-8").splitlines():
        if line and not line.startswith("#"):
            pattern = re.escape(line.removeprefix("!")).replace(r"\*\*/", "(.*/)?").replace(r"\*", "[^/]*")
            if any(re.fullmatch(pattern, str(part)) for part in (path, *PurePosixPath(path).parents)):
                verdict = not line.startswith("!")
    return verdict


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
        "tests/test_walls.py",
        "benchmarks/search.py",
        "deploy/verify_image.sh",
        "secret.pem",
        "models/__pycache__/card.cpython-311.pyc",
        "requirements/notes.txt",
    ],
)
def test_what_the_image_is_not_made_of_is_kept_out_of_the_build(path: str) -> None:
    assert ignored(path)


def test_every_package_every_model_of_the_zoo_and_every_lock_file_goes_in() -> None:
    packages = PROJECT["tool"]["hatch"]["build"]["targets"]["wheel"]["packages"]
    needed = [path for package in packages for path in (ROOT / package).rglob("*") if "__pycache__" not in path.parts]
    needed += [*(ROOT / "requirements").glob("*.lock"), ROOT / "models/zoo/mtrl-lite/model.onnx"]
    needed += [ROOT / name for name in ("pyproject.toml", PROJECT["project"]["readme"], "LICENSE")]
    assert not [path for path in needed if ignored(path.relative_to(ROOT).as_posix())]


def test_only_the_installed_environment_is_copied_into_the_shipped_stage() -> None:
    assert of_the_image("COPY") == ["--from=build /opt/vireid /opt/vireid"]


# --- the image ---------------------------------------------------------------------------------------------------


def test_nothing_is_fetched_by_address() -> None:
    assert "ADD" not in {word for stage in stages() for word, _ in stage}
    for name in ("Dockerfile", "docker-compose.yml", ".dockerignore", "deploy/verify_image.sh"):
        assert "://" not in (ROOT / name).read_text("utf-8"), name


def test_dependencies_are_installed_by_hash_and_for_each_extra_there_is_a_lock_file() -> None:
    (install,) = [rest for word, rest in stages()[1] if word == "RUN" and "-r requirements.lock" in rest]
    assert "--require-hashes" in install
    for service in SERVICES.values():
        assert (ROOT / "requirements" / f"{service['build']['args']['EXTRA']}.lock").is_file()


def test_the_user_is_a_number_and_not_root() -> None:
    (user,) = of_the_image("USER")
    assert re.fullmatch(r"[1-9]\d*:[1-9]\d*", user), "a number lets a cluster check that it is not root"


def test_the_command_is_process_1_without_a_shell() -> None:
    (entry,), (command,) = of_the_image("ENTRYPOINT"), of_the_image("CMD")
    assert [*json.loads(entry), *json.loads(command)] == ["vireid", "serve"]
    assert entry.removeprefix("[").removesuffix("]").strip('"') in PROJECT["project"]["scripts"]


def test_labels_tell_the_version_and_licence_of_the_project() -> None:
    labels = pairs("LABEL")
    assert labels["org.opencontainers.image.version"] == PROJECT["project"]["version"]
    assert labels["org.opencontainers.image.licenses"] == PROJECT["project"]["license"]


def test_every_setting_of_image_and_services_is_one_of_the_server_and_makes_keys_compulsory(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for service in SERVICES.values():
        values = pairs("ENV") | service["environment"]
        refuse_unknown(values, Settings.model_fields)
        with monkeypatch.context() as environment:
            for name in [name for name in os.environ if name.startswith(PREFIX)]:
                environment.delenv(name)
            for name in [name for name in values if name.startswith(PREFIX)]:
                environment.setenv(name, values[name])
            settings = Settings()
        assert settings.auth_required
        assert [str(settings.data_dir)] == of_the_image("VOLUME")


@contextmanager
def answering(status: int) -> Iterator[int]:
    """A server on loopback that answers /healthz with ``status``; gives its port."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(status if self.path == "/healthz" else 404)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    with HTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield server.server_port
        finally:
            server.shutdown()
            thread.join()


def health_check(port: int) -> int:
    (check,) = of_the_image("HEALTHCHECK")
    python, *arguments = json.loads(check[check.index("CMD") + len("CMD") :])
    assert python == "python3"
    environment = {**os.environ, "VIREID_PORT": str(port), "http_proxy": "http://127.0.0.1:9"}
    return subprocess.run([sys.executable, *arguments], env=environment, capture_output=True, timeout=20).returncode


@pytest.mark.parametrize(("status", "code"), [(200, 0), (503, 1)])
def test_the_health_check_tells_a_healthy_server_from_another(status: int, code: int) -> None:
    with answering(status) as port:
        assert health_check(port) == code


def test_the_health_check_fails_where_nothing_listens() -> None:
    with answering(200) as port:
        pass
    assert health_check(port) == 1


# --- the services ------------------------------------------------------------------------------------------------


def test_a_plain_up_starts_the_cpu_service_alone_and_the_profile_gpu_adds_the_other() -> None:
    profiles = {name: service.get("profiles", []) for name, service in SERVICES.items()}
    assert profiles == {"cpu": [], "gpu": ["gpu"]}
    assert all(service["build"]["args"]["EXTRA"] == name for name, service in SERVICES.items())


def test_the_gpu_service_reserves_an_nvidia_gpu_and_refuses_to_do_without() -> None:
    (device,) = SERVICES["gpu"]["deploy"]["resources"]["reservations"]["devices"]
    assert (device["driver"], device["capabilities"]) == ("nvidia", ["gpu"])
    assert SERVICES["gpu"]["environment"]["VIREID_DEVICE"] == "cuda"


@pytest.mark.parametrize("name", SERVICES)
def test_each_service_is_confined_and_keeps_its_data(name: str) -> None:
    service = SERVICES[name]
    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert [entry.split(":")[0] for entry in service["tmpfs"]] == ["/tmp"]
    assert service["restart"] == "unless-stopped"
    assert service["mem_limit"]
    (mount,) = service["volumes"]
    volume, _, folder = mount.partition(":")
    assert volume in COMPOSE["volumes"]
    assert [folder] == of_the_image("VOLUME")


@pytest.mark.parametrize("name", SERVICES)
def test_each_service_is_published_on_loopback_unless_told_otherwise(name: str) -> None:
    (published,) = SERVICES[name]["ports"]
    default = re.sub(r"\$\{\w+:-([^}]*)\}", r"\1", published)
    port = pairs("ENV")["VIREID_PORT"]
    assert default == f"127.0.0.1:8000:{port}"
    assert of_the_image("EXPOSE") == [port]


@pytest.mark.parametrize("name", SERVICES)
def test_each_build_argument_of_a_service_exists(name: str) -> None:
    declared = {rest.split("=")[0] for stage in stages() for word, rest in stage if word == "ARG"}
    assert SERVICES[name]["build"]["args"].keys() <= declared


# --- the script that proves the image ----------------------------------------------------------------------------


def test_the_script_can_be_run_and_runs_the_image_as_the_services_do() -> None:
    subprocess.run(["bash", "-n", str(SCRIPT)], check=True)
    assert os.access(SCRIPT, os.X_OK)
    text = SCRIPT.read_text("utf-8")
    (temporary,) = SERVICES["cpu"]["tmpfs"]
    for option in ("--read-only", "--cap-drop ALL", "--security-opt no-new-privileges", f"--tmpfs {temporary}"):
        assert option in text, option
