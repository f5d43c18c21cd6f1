"""Serve the calls that tell a replica to drain, to pause or to resume."""

from __future__ import annotations

from starlette.responses import Response

from lifecycle.errors import Conflict, InvalidValue, NotFound
from lifecycle.fastapi.errors import ApiError
from lifecycle.fastapi.json_response import JsonResponse
from lifecycle.queries import instructions
from lifecycle.store.transitions import Store
from lifecycle.types import ErrorType, ReplicaAction


async def instruct(store: Store, id: str, action: ReplicaAction, by: str) -> Response:
    """Instruct a replica and answer 202 with it. Raises StoreError, and ApiError: 404, 400 or 409."""
    try:
        replica = await instructions.instruct(store, id, action, by)
    except NotFound as failure:
        raise ApiError(ErrorType.NOT_FOUND, failure.message, code="replica_not_found", param="id") from None
    except InvalidValue as failure:
        raise ApiError(ErrorType.VALIDATION, failure.message, code="not_a_worker", param="id") from None
    except Conflict as failure:
        raise ApiError(ErrorType.VALIDATION, failure.message, status=409, code="replica_draining", param="id") from None
    return JsonResponse(replica.to_json(), 202)
