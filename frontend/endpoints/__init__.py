"""The endpoints of the API. Each is one package; this list is all that names them."""

from __future__ import annotations

from frontend.endpoints.completions.endpoint import COMPLETIONS
from frontend.endpoints.endpoint import ApiEndpoint
from frontend.endpoints.forwards.endpoint import FORWARDS
from frontend.endpoints.messages.endpoint import CountTokens, Messages
from frontend.endpoints.responses.endpoint import Responses

ENDPOINTS: tuple[ApiEndpoint, ...] = (
    *COMPLETIONS,
    Responses(),
    CountTokens(),
    Messages(),
    *FORWARDS,
)
BY_NAME: dict[str, ApiEndpoint] = {endpoint.name: endpoint for endpoint in ENDPOINTS}
BY_PATH: dict[str, ApiEndpoint] = {path: endpoint for endpoint in ENDPOINTS for path in endpoint.paths}


def endpoint_at(path: str) -> ApiEndpoint | None:
    """Return the endpoint that a path belongs to, which is its own or one above it; None for another path."""
    found = BY_PATH.get(path)
    return found or next((endpoint for above, endpoint in BY_PATH.items() if path.startswith(above + "/")), None)
