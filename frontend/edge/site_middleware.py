"""Apply the rules about other sites to every call, before its API key is looked at."""

from __future__ import annotations

from starlette.types import ASGIApp, Receive, Scope, Send

from frontend.edge.cors import Cors, is_preflight
from frontend.edge.own_site import OwnSite
from frontend.transport.error_responses import error_response
from frontend.transport.headers import headers_of
from lifecycle.fastapi.errors import ApiError


class SiteMiddleware:
    """Answer preflights, and refuse calls that `own_site` does not accept; None accepts them all."""

    def __init__(self, app: ASGIApp, cors: Cors, own_site: OwnSite | None) -> None:
        self._app = app
        self._cors = cors
        self._own_site = own_site

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            headers = headers_of(scope)
            if self._own_site is not None:
                try:
                    self._own_site.check(scope["method"], headers)
                except ApiError as refusal:
                    await error_response(scope, refusal)(scope, receive, send)
                    return
            if is_preflight(scope, headers):
                await self._cors.answer_preflight(headers, scope, receive, send)
                return
        await self._app(scope, receive, send)
