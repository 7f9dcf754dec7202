"""All settings of the server, read from ``VIREID_*`` environment variables."""

from __future__ import annotations

import ipaddress
import os
import re
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal, Self
from urllib.parse import urlsplit

from pydantic import Field, SecretStr, field_validator, model_validator
from pydantic.fields import FieldInfo
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict

import models.card
from models.card import Precision
from server.embedding.providers import each_device
from server.environment import PREFIX, setting_values, unknown_names

__all__ = ["PREFIX", "Settings", "is_loopback"]

_LOCAL_NAME = "localhost"
_FAILED_AUTH_PER_MINUTE = 30

SignatureAlgorithm = Literal[
    "RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA"
]  # fmt: skip
"""None with a shared secret, which the server would have to know."""


def _default_model_dir() -> Path:
    return Path(models.card.__file__).with_name("zoo")


class _Environment(PydanticBaseSettingsSource):
    """Supplies the values of environment variables."""

    def get_field_value(self, field: FieldInfo, field_name: str) -> tuple[Any, str, bool]:  # noqa: ARG002
        return setting_values(os.environ).get(field_name.upper()), field_name, False

    def __call__(self) -> dict[str, Any]:
        """Return the values that are set, by field."""
        values = setting_values(os.environ)
        return {name: values[name.upper()] for name in self.settings_cls.model_fields if name.upper() in values}


class Settings(BaseSettings):
    """Settings of one server.

    Raises:
        pydantic.ValidationError: a value is invalid, or an environment variable is probably a misspelt setting.
    """

    model_config = SettingsConfigDict(frozen=True, extra="forbid", protected_namespaces=(), hide_input_in_errors=True)

    data_dir: Path = Field(
        Path("vireid-data"),
        description="Folder for galleries, API keys and uploads. Created if missing; used by one server at a time.",
    )
    database_url: SecretStr | None = Field(
        None,
        description="PostgreSQL database for galleries, API keys and jobs, as in "
        "postgresql+psycopg://USER:PASSWORD@HOST:5432/DATABASE; used by one server at a time. The password may come "
        "from PGPASSFILE instead. Unset: a SQLite file in the data directory.",
    )
    model_dir: Path = Field(
        default_factory=_default_model_dir,
        description="Folder of models, each with NAME/model.onnx and NAME/card.json.",
    )
    model: str | None = Field(
        None,
        description="Name of the default model. Unset: baseline if the folder contains it, else the only model.",
    )
    device: str = Field(
        "auto",
        description="Device for inference: auto, cpu, cuda, tensorrt, or several GPUs as in cuda:0,1 or tensorrt:0,1. "
        "The server does not start if the device is not available; auto uses the first GPU if CUDA works there, else "
        "the CPU, and logs its choice.",
    )
    precision: Precision | Literal["auto"] = Field(
        "auto",
        description="Number format of inference: fp32, fp16 or int8, each an exported file, or bf16, for which "
        "OpenVINO runs the fp32 file on a processor with tiles (amx_bf16). auto: bf16 on such a processor, int8 on "
        "others with VNNI, and fp16 on a GPU, provided that the model's card lists it with a loss of at most 0.005 in "
        "Rank-1 and mAP; else fp32.",
    )
    gpu_memory: int | None = Field(
        None, ge=2**28, description="Limit of GPU memory per model and GPU, in bytes. Unset: no limit."
    )
    threads: int | None = Field(
        None,
        ge=1,
        description="Inference threads on the CPU, for queries and for imports each. Unset: one per usable core.",
    )

    host: str = Field(
        "127.0.0.1", min_length=1, description="Address to listen on; :: listens on all IPv6 and IPv4 addresses."
    )
    port: int = Field(8000, ge=0, le=65535, description="Port to listen on; 0 selects a free port.")
    auth: Literal["required", "off"] | None = Field(
        None,
        description="API keys: required or off. Unset: off on a loopback address, required on any other; off is only "
        "allowed on loopback. Set required behind a proxy on the same machine, else its clients need no key.",
    )

    oidc_issuer: str | None = Field(
        None,
        description="OpenID Connect issuer whose tokens are accepted besides API keys, exactly as in their claim iss, "
        "for example https://id.example.org/realms/site. Unset: API keys only.",
    )
    oidc_audience: str | None = Field(
        None, description="Audience that a token must be for (claim aud). Required with an issuer."
    )
    oidc_jwks_url: str | None = Field(
        None, description="Address of the issuer's keys. Unset: the one that its discovery document names."
    )
    oidc_algorithms: tuple[SignatureAlgorithm, ...] = Field(
        ("RS256", "ES256"), min_length=1, description="Signature algorithms that are accepted, separated by commas."
    )
    oidc_scopes_claim: str = Field(
        "scope", description="Claim with the scopes, a string or an array; dots lead into objects."
    )
    oidc_scope_prefix: str = Field("vireid:", description="What precedes search, write and admin in that claim.")
    oidc_galleries_claim: str = Field(
        "vireid_galleries",
        description="Claim with the galleries, a string or an array; * names all. Without it a token covers none.",
    )

    root_path: str = Field(
        "",
        description="Path prefix under which a proxy publishes the server, as in /vireid. The proxy may remove it from "
        "requests or not.",
    )
    keep_alive_s: int = Field(
        75,
        ge=1,
        le=3600,
        description="Seconds for which an idle connection is kept open. Keep it above the idle timeout of a proxy in "
        "front of the server.",
    )

    max_connections: int = Field(
        750,
        ge=8,
        le=100_000,
        description="Maximum number of open connections. A further one replaces the connection that is silent for "
        "longest, unless all are being served. Keep it below the process's limit of open files.",
    )
    header_timeout_s: float = Field(
        20, ge=0.1, le=3600, description="Seconds within which the header of a request must arrive; else 408."
    )
    body_timeout_s: float = Field(
        30,
        ge=0.1,
        le=3600,
        description="Seconds over which the rate of a request body is measured; below 1,024 bytes per second the "
        "answer is 408. A client that reads nothing of its response for so long is disconnected.",
    )
    request_timeout_s: float = Field(
        30,
        ge=0.1,
        le=3600,
        description="Seconds that the images of a request, or a scan of a gallery, may wait and be worked on; then "
        "they are dropped and the answer is 503.",
    )
    trusted_proxies: tuple[str, ...] = Field(
        (),
        description="Addresses or networks of proxies, separated by commas, whose header X-Forwarded-For names the "
        "client. Unset: the address of a client is that of its connection.",
    )
    failed_auth_per_minute: int | None = Field(
        None,
        ge=0,
        description="Requests without a valid key that an address may send each minute; then it gets 429. 0: no "
        "limit. Unset: 30, and no limit on a loopback address.",
    )

    max_images: int = Field(64, ge=1, le=4096, description="Maximum number of images in one request.")
    max_image_bytes: int = Field(10 * 2**20, ge=1024, description="Maximum size of one image file, in bytes.")
    max_body_bytes: int = Field(128 * 2**20, ge=1024, description="Maximum size of one request body, in bytes.")
    max_body_memory: int = Field(
        512 * 2**20,
        ge=1024,
        description="Maximum size of all request bodies in memory together, in bytes; further ones are answered with "
        "503. Uploads of imports are not counted, as they go to disk.",
    )
    max_pixels: int = Field(
        25_000_000,
        ge=1,
        le=80_000_000,
        description="Maximum number of pixels of one image, checked in its header before decoding.",
    )
    max_in_flight: int = Field(
        512,
        ge=1,
        description="Permits for images in work at once; further requests are answered with 429. An image needs a "
        "permit, and one more per 524,288 pixels.",
    )

    otlp_endpoint: str | None = Field(
        None,
        description="Address to which a span of each request is sent by OTLP over HTTP, such as "
        "http://collector:4318/v1/traces. Unset: no traces.",
    )

    search_device: Literal["auto", "cpu", "cuda"] = Field(
        "cpu",
        description="Device for gallery search. cuda: do not start if a GPU fails its self-test; auto: use the GPUs if "
        "they pass it, else the CPU.",
    )
    search_codes: bool = Field(
        True,
        description="Keep one-byte codes beside the vectors of galleries from 16,384 items on, for searches on the "
        "CPU. Searches read half as many bytes (a quarter for float32 vectors) and give the same hits; memory grows "
        "by one byte a dimension and item.",
    )
    approximate_above: int | None = Field(
        None,
        ge=1,
        description="Number of items above which a gallery is searched with inverted lists, if their measured recall "
        "of the ten nearest items is at least 99 %. Unset: every search is exact.",
    )

    audit_case_required: bool = Field(
        False, description="Refuse searches without the header X-Case-Reference, which the audit log keeps."
    )
    audit_retention_days: int | None = Field(
        None,
        ge=1,
        le=36500,
        description="Days for which audit entries are kept; the hash chain stays verifiable. Unset: for ever.",
    )

    encryption_keys: SecretStr | None = Field(
        None,
        description="Keys that encrypt vectors, thumbnails, index snapshots and uploads on disk: ID:KEY, separated by "
        "blanks, each KEY 32 bytes in base64. The first is for new data. Unset, also as file: nothing is encrypted.",
    )
    encryption_key_file: Path | None = Field(
        None, description="File with the same keys, one per line, readable only by the server."
    )

    import_roots: tuple[Path, ...] = Field(
        (), description="Server folders that imports may read, separated by colons. Unset: none."
    )
    max_import_bytes: int = Field(
        64 * 2**30,
        ge=1024,
        description="Maximum size of one import's upload, in bytes. It is stored until the import ends.",
    )

    @field_validator("import_roots", mode="before")
    @classmethod
    def _separated(cls, value: object) -> object:
        return tuple(part for part in value.split(os.pathsep) if part) if isinstance(value, str) else value

    @field_validator("trusted_proxies", mode="before")
    @classmethod
    def _networks(cls, value: object) -> object:
        parts = [part.strip() for part in value.split(",") if part.strip()] if isinstance(value, str) else value
        for part in parts if isinstance(parts, list | tuple) else ():
            ipaddress.ip_network(part, strict=False)
        return parts

    @field_validator("oidc_algorithms", mode="before")
    @classmethod
    def _algorithms(cls, value: object) -> object:
        return tuple(value.replace(",", " ").split()) if isinstance(value, str) else value

    @field_validator("oidc_issuer", "oidc_jwks_url")
    @classmethod
    def _secure(cls, value: str | None) -> str | None:
        if value is not None:
            address = urlsplit(value)
            local = address.scheme == "http" and is_loopback(address.hostname or "")
            if not address.hostname or not (address.scheme == "https" or local):
                raise ValueError(f"expected an https address, found {value}")
        return value

    @field_validator("device")
    @classmethod
    def _devices(cls, value: str) -> str:
        each_device(value)
        return value

    @field_validator("database_url")
    @classmethod
    def _postgresql(cls, value: SecretStr | None) -> SecretStr | None:
        url = "" if value is None else value.get_secret_value()
        if value is not None and not re.match(r"postgresql(\+psycopg)?://[^/]*/[^/?]+(\?.*)?$", url):
            raise ValueError("expected postgresql+psycopg://USER:PASSWORD@HOST:PORT/DATABASE")
        return value and SecretStr(re.sub(r"^postgresql://", "postgresql+psycopg://", url))

    @field_validator("root_path")
    @classmethod
    def _normal_root_path(cls, value: str) -> str:
        path = "/".join(["", *(part for part in value.split("/") if part)])
        if not re.fullmatch(r"[A-Za-z0-9._~/-]*", path) or {".", ".."} & set(path.split("/")):
            raise ValueError(f"expected a path such as /vireid, found {value}")
        return path

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,  # noqa: ARG003
        dotenv_settings: PydanticBaseSettingsSource,  # noqa: ARG003
        file_secret_settings: PydanticBaseSettingsSource,  # noqa: ARG003
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Read keyword arguments first, then environment variables."""
        return init_settings, _Environment(settings_cls)

    @model_validator(mode="before")
    @classmethod
    def _known_names_only(cls, values: object) -> object:
        unknown_names(os.environ, cls.model_fields)
        return values

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.auth == "off" and not self.loopback:
            raise ValueError(
                f"{PREFIX}AUTH=off is refused on {self.host}: access without keys is only allowed on a loopback address"
            )
        if self.max_body_memory < self.max_body_bytes:
            raise ValueError(
                f"{PREFIX}MAX_BODY_MEMORY is {self.max_body_memory} but must be at least {PREFIX}MAX_BODY_BYTES, "
                f"{self.max_body_bytes}; otherwise a large body would always be refused"
            )
        if self.max_in_flight < self.max_images:
            raise ValueError(
                f"{PREFIX}MAX_IN_FLIGHT is {self.max_in_flight} but must be at least {PREFIX}MAX_IMAGES, "
                f"{self.max_images}; otherwise a full request would always be refused"
            )
        if (self.oidc_issuer is None) != (self.oidc_audience is None):
            raise ValueError(f"{PREFIX}OIDC_ISSUER and {PREFIX}OIDC_AUDIENCE must be set together")
        if self.encryption_keys is not None and self.encryption_key_file is not None:
            raise ValueError(f"set either {PREFIX}ENCRYPTION_KEYS or {PREFIX}ENCRYPTION_KEY_FILE, not both")
        return self

    @property
    def loopback(self) -> bool:
        """Whether ``host`` is reachable only from this machine."""
        return is_loopback(self.host)

    @property
    def auth_required(self) -> bool:
        """Whether every request under ``/v1`` needs an API key."""
        return self.auth == "required" or (self.auth is None and not self.loopback)

    @property
    def most_failed_auth(self) -> int | None:
        """Requests without a valid key that an address may send each minute; None: any number."""
        if self.failed_auth_per_minute is None:
            return None if self.loopback else _FAILED_AUTH_PER_MINUTE
        return self.failed_auth_per_minute or None


@lru_cache  # called by every request
def is_loopback(host: str) -> bool:
    """Return whether a host, an address or ``localhost``, is a loopback address."""
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return host == _LOCAL_NAME
