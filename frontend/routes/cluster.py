"""Serve what the cluster consists of: models, counts of inflight requests, replicas and metrics."""

from __future__ import annotations

import asyncio
from typing import Any

import orjson
from fastapi import APIRouter, Request, Response
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4

from frontend.transport.deps import get_caller, get_tracker
from lifecycle.fastapi.errors import ApiError
from lifecycle.fastapi.instructions import instruct
from lifecycle.queries import cluster, queues
from lifecycle.store.worker_roster import max_model_lens_of, models_of, workers_of
from lifecycle.tracking.tracker import Tracker
from lifecycle.types import ErrorType, ReplicaAction

router = APIRouter()


def _json(content: Any) -> Response:
    return Response(orjson.dumps(content), media_type="application/json")


async def _models(tracker: Tracker) -> dict[str, dict[str, Any]]:
    """Return the model objects of OpenAI's API, by name. Raises StoreError."""
    workers = workers_of(await tracker.refresh_roster(), tracker.settings.lease_secs)
    lengths = max_model_lens_of(workers)
    return {
        name: {"id": name, "object": "model", "created": int(created_at), "owned_by": "lifecycle"}
        | ({"max_model_len": lengths[name]} if name in lengths else {})
        for name, created_at in sorted(models_of(workers).items())
    }


@router.get("/v1/models")
async def list_models(request: Request) -> Response:
    """List the models that live workers serve. Raises StoreError."""
    live = await _models(get_tracker(request))
    return _json({"object": "list", "data": list(live.values())})


@router.get("/v1/models/{name:path}")
async def read_model(request: Request, name: str) -> Response:
    """Return one model that a live worker serves. Raises ApiError (404) or StoreError."""
    live = await _models(get_tracker(request))
    if name not in live:
        raise ApiError(ErrorType.NOT_FOUND, f"The model {name!r} does not exist", code="model_not_found", param="model")
    return _json(live[name])


@router.get("/v1/inflight")
async def inflight(request: Request) -> Response:
    """Count the inflight requests of the cluster, of one model if the query names it. Raises StoreError."""
    counts = await cluster.inflight(get_tracker(request).store, request.query_params.get("model", ""))
    return _json(counts.to_json())


@router.get("/v1/replicas")
async def replicas(request: Request) -> Response:
    """List the replicas that hold a lease. Raises StoreError."""
    living = await cluster.replicas(get_tracker(request).store)
    return _json({"object": "list", "data": [replica.to_json() for replica in living]})


@router.post("/v1/replicas/{id}/drain")
async def drain(request: Request, id: str) -> Response:
    """Tell a replica to finish what it has, and then to leave. Raises ApiError or StoreError."""
    return await _instruct(request, id, ReplicaAction.DRAIN)


@router.post("/v1/replicas/{id}/pause")
async def pause(request: Request, id: str) -> Response:
    """Tell a worker to take nothing new. Raises ApiError or StoreError."""
    return await _instruct(request, id, ReplicaAction.PAUSE)


@router.post("/v1/replicas/{id}/resume")
async def resume(request: Request, id: str) -> Response:
    """Tell a paused worker to take requests again. Raises ApiError or StoreError."""
    return await _instruct(request, id, ReplicaAction.RESUME)


async def _instruct(request: Request, id: str, action: ReplicaAction) -> Response:
    return await instruct(get_tracker(request).store, id, action, get_caller(request).canceller)


@router.get("/v1/queue")
async def queue(request: Request) -> Response:
    """List what waits, by model and owner; of one model if the query names it. Raises StoreError."""
    found = await queues.read_queues(get_tracker(request).store, request.query_params.get("model", ""))
    return _json({"object": "list", "data": [model.to_json() for model in found]})


@router.get("/metrics")
async def metrics(request: Request) -> Response:
    """Return the metrics in Prometheus's text format."""
    exporter = request.app.state.exporter
    await exporter.refresh()
    return Response(await asyncio.to_thread(exporter.render), media_type=CONTENT_TYPE_PLAIN_0_0_4)
