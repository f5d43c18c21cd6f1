"""The endpoints of the API. Each is one package; this list is all that names them."""

from __future__ import annotations

from frontend.endpoints.completions.endpoint import ChatCompletions, TextCompletions
from frontend.endpoints.endpoint import ApiEndpoint
from frontend.endpoints.forwards.endpoint import FORWARDS
from frontend.endpoints.responses.endpoint import Responses

ENDPOINTS: tuple[ApiEndpoint, ...] = (ChatCompletions(), TextCompletions(), Responses(), *FORWARDS)
BY_NAME: dict[str, ApiEndpoint] = {endpoint.name: endpoint for endpoint in ENDPOINTS}
BY_PATH: dict[str, ApiEndpoint] = {path: endpoint for endpoint in ENDPOINTS for path in endpoint.paths}
