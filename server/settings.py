"""Every setting of the server: typed, in one place, read from ``VIREID_…`` environment variables."""

from __future__ import annotations

import difflib
import ipaddress
import os
from collections.abc import Iterable
from functools import lru_cache
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import Field, field_validator, model_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

import models.card
from models.card import Precision
from server.embedding.providers import each_device

__all__ = ["PREFIX", "Settings", "is_loopback", "refuse_unknown"]

PREFIX = "VIREID_"
_LOCAL_NAME = "localhost"


def _default_model_dir() -> Path:
    return Path(models.card.__file__).with_name("zoo")


class Settings(BaseSettings):
    """Settings of one server.

    Raises:
        pydantic.ValidationError: a value is not allowed, or an environment variable with the prefix names no setting.
    """

    model_config = SettingsConfigDict(env_prefix=PREFIX, frozen=True, extra="forbid", protected_namespaces=())

    data_dir: Path = Field(
        Path("vireid-data"),
        description="Folder that holds galleries and keys; made when missing, used by one server at a time.",
    )
    model_dir: Path = Field(
        default_factory=_default_model_dir, description="Folder of models, NAME/model.onnx and NAME/card.json each."
    )
    model: str | None = Field(
        None,
        description="Name of the default model. Unset: mtrl-lite where the folder has it, else its only model.",
    )
    device: str = Field(
        "auto",
        description="Where models run: auto, cpu, cuda, tensorrt, or several GPUs as in cuda:0,1 or tensorrt:0,1. What "
        "cannot run refuses to start; auto takes the first GPU if CUDA starts there, else the CPU, and says it.",
    )
    precision: Precision | Literal["auto"] = Field(
        "auto",
        description="What each model computes in: fp32, fp16 or int8, each an exported file, or bf16, for which "
        "OpenVINO runs the fp32 file on a processor with tiles (amx_bf16). auto: bf16 on such a processor, int8 on "
        "another with VNNI and fp16 on a GPU, if the model's card has it at a loss of at most 0.005 in Rank-1 and mAP; "
        "else fp32.",
    )
    gpu_memory: int | None = Field(
        None, ge=2**28, description="Bytes of GPU memory that each model may take on each GPU. Unset: no limit."
    )
    threads: int | None = Field(
        None,
        ge=1,
        description="Threads of inference on the CPU, of queries and of imports each. Unset: as many as cores.",
    )

    host: str = Field("127.0.0.1", min_length=1, description="Address to listen on.")
    port: int = Field(8000, ge=0, le=65535, description="Port to listen on; 0 takes a free one.")
    auth: Literal["required", "off"] | None = Field(
        None,
        description="API keys, required or off. Unset: off on a loopback address, required elsewhere; off is refused "
        "elsewhere. Behind a proxy on the same machine: required, or whoever reaches the proxy needs no key.",
    )

    max_images: int = Field(64, ge=1, le=4096, description="Images in one request.")
    max_image_bytes: int = Field(10 * 2**20, ge=1024, description="Bytes of one image.")
    max_body_bytes: int = Field(128 * 2**20, ge=1024, description="Bytes of one request body.")
    max_pixels: int = Field(
        25_000_000, ge=1, le=80_000_000, description="Pixels of one image, checked in its header before decoding."
    )
    max_in_flight: int = Field(
        512, ge=1, description="Images being worked on at once; beyond it a request is answered 429."
    )

    search_device: Literal["auto", "cpu", "cuda"] = Field(
        "cpu",
        description="Where galleries are searched. cuda refuses to start where a GPU fails its test; auto takes the "
        "GPUs if they pass.",
    )
    approximate_above: int | None = Field(
        None,
        ge=1,
        description="Items from which on a gallery is searched by inverted lists, if these find 99 % of the ten "
        "nearest ones, as is measured. Unset: every search is exact.",
    )

    import_roots: Annotated[tuple[Path, ...], NoDecode] = Field(
        (), description="Folders of this machine below which imports may read, separated by colons. Unset: none."
    )
    max_import_bytes: int = Field(64 * 2**30, ge=1024, description="Bytes of one import's upload, kept until it ends.")

    @field_validator("import_roots", mode="before")
    @classmethod
    def _separated(cls, value: object) -> object:
        return tuple(part for part in value.split(os.pathsep) if part) if isinstance(value, str) else value

    @field_validator("device")
    @classmethod
    def _devices(cls, value: str) -> str:
        each_device(value)
        return value

    @model_validator(mode="before")
    @classmethod
    def _known_names_only(cls, values: object) -> object:
        refuse_unknown(os.environ, cls.model_fields)
        return values

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.auth == "off" and not self.loopback:
            raise ValueError(
                f"{PREFIX}AUTH=off is refused on {self.host}: only a loopback address may be open without keys"
            )
        if self.max_in_flight < self.max_images:
            raise ValueError(
                f"{PREFIX}MAX_IN_FLIGHT is {self.max_in_flight} and must be at least {PREFIX}MAX_IMAGES, "
                f"{self.max_images}, or a full request could never be answered"
            )
        return self

    @property
    def loopback(self) -> bool:
        """Whether ``host`` can be reached from this machine alone."""
        return is_loopback(self.host)

    @property
    def auth_required(self) -> bool:
        """Whether every call under ``/v1`` needs a key."""
        return self.auth == "required" or (self.auth is None and not self.loopback)


@lru_cache  # asked by every request
def is_loopback(host: str) -> bool:
    """Whether a host, an address or ``localhost``, is this machine seen from itself."""
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return host == _LOCAL_NAME


def refuse_unknown(environment: Iterable[str], fields: Iterable[str]) -> None:
    """Check that each name with the prefix is a setting.

    Raises:
        ValueError: one is not; the text gives the nearest that is.
    """
    known = {PREFIX + field.upper() for field in fields}
    for name in environment:
        if name.upper().startswith(PREFIX) and name.upper() not in known:
            nearest = difflib.get_close_matches(name.upper(), sorted(known), n=1, cutoff=0)[0]
            raise ValueError(f"unknown setting {name}; the nearest known name is {nearest}")
