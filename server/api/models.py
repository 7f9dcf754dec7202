"""The loaded models and their cards."""

from __future__ import annotations

from fastapi import APIRouter

from models.card import Card
from server.api.auth import Reader
from server.api.errors import problems
from server.api.schemas import ModelsList
from server.api.service import ServiceDep

__all__ = ["router"]

router = APIRouter(prefix="/v1/models", tags=["models"])


@router.get("", responses=problems())
def list_models(service: ServiceDep, _caller: Reader) -> ModelsList:
    """The cards of all loaded models."""
    return ModelsList(models=[engine.card for engine in service.models], default=service.models.default)


@router.get("/{name}", responses=problems(404))
def get_model(name: str, service: ServiceDep, _caller: Reader) -> Card:
    """The card of one model."""
    return service.models.get(name).card
