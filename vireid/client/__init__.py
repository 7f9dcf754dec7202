"""The Python client of the HTTP API. It needs neither server nor torch.

>>> from vireid.client import Client
>>> with Client("http://127.0.0.1:8000") as client:  # doctest: +SKIP
...     client.search("night", ["crop.png"], k=5).hits[0].item.id
"""

from __future__ import annotations

from models.card import Modality
from vireid import DEFAULT_URL
from vireid.client.async_client import AsyncClient
from vireid.client.client import Client
from vireid.client.errors import (
    ApiError,
    ClientError,
    Conflict,
    Forbidden,
    InvalidRequest,
    JobFailed,
    NotFound,
    RequestRejected,
    ServerFailed,
    TooBusy,
    Unauthorized,
    UnexpectedAnswer,
    Unreachable,
)
from vireid.client.payloads import (
    AnyModality,
    GalleryUpdate,
    Image,
    ImportKind,
    ItemUpdate,
    Progress,
    SearchOptions,
    StoredSearch,
    Vectors,
    import_kind,
)
from vireid.client.tables import to_pandas, to_rows
from vireid.schemas.calibrations import CalibrationUsed
from vireid.schemas.compare import Comparison
from vireid.schemas.duplicates import DuplicatePair
from vireid.schemas.erasures import Receipt
from vireid.schemas.fields import CropWarning, ModalityChoice
from vireid.schemas.filters import Filter
from vireid.schemas.galleries import GalleryDetails, VectorType
from vireid.schemas.health import Readiness
from vireid.schemas.items import ItemDetails, ItemFields, ItemSummary, WriteResult
from vireid.schemas.jobs import JobFailure, JobState, JobStatus
from vireid.schemas.keys import KeyDetails, KeyWithSecret, Scope
from vireid.schemas.limits import Limits
from vireid.schemas.models import ModelsList
from vireid.schemas.problems import FieldError, Problem
from vireid.schemas.search import (
    Fusion,
    RerankOptions,
    SearchAnswer,
    SearchGroup,
    SearchHit,
    SearchOutcome,
)

__all__ = [
    "DEFAULT_URL",
    "AnyModality",
    "ApiError",
    "AsyncClient",
    "CalibrationUsed",
    "Client",
    "ClientError",
    "Comparison",
    "Conflict",
    "CropWarning",
    "DuplicatePair",
    "FieldError",
    "Filter",
    "Forbidden",
    "Fusion",
    "GalleryDetails",
    "GalleryUpdate",
    "Image",
    "ImportKind",
    "InvalidRequest",
    "ItemDetails",
    "ItemFields",
    "ItemSummary",
    "ItemUpdate",
    "JobFailed",
    "JobFailure",
    "JobState",
    "JobStatus",
    "KeyDetails",
    "KeyWithSecret",
    "Limits",
    "Modality",
    "ModalityChoice",
    "ModelsList",
    "NotFound",
    "Problem",
    "Progress",
    "Readiness",
    "Receipt",
    "RequestRejected",
    "RerankOptions",
    "Scope",
    "SearchAnswer",
    "SearchGroup",
    "SearchHit",
    "SearchOptions",
    "SearchOutcome",
    "ServerFailed",
    "StoredSearch",
    "TooBusy",
    "Unauthorized",
    "UnexpectedAnswer",
    "Unreachable",
    "VectorType",
    "Vectors",
    "WriteResult",
    "import_kind",
    "to_pandas",
    "to_rows",
]
