"""Loaded models and their cards."""

from __future__ import annotations

from fastapi import APIRouter

from models.card import Card
from server.api.app_state import StateDep
from server.api.auth import Reader
from server.api.errors import problems
from vireid.schemas.models import ModelsList

__all__ = ["router"]

router = APIRouter(prefix="/v1/models", tags=["models"])


@router.get("", summary="List models", responses=problems())
def list_models(state: StateDep, _caller: Reader) -> ModelsList:
    """Return the cards of all loaded models and the name of the default model."""
    return ModelsList(models=[engine.card for engine in state.models], default=state.models.default)


@router.get("/{name}", summary="Get a model", responses=problems(404))
def get_model(name: str, state: StateDep, _caller: Reader) -> Card:
    """Return the card of one model."""
    return state.models.get(name).card
