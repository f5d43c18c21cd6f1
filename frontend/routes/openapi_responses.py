"""Describe the calls of the Responses API for `GET /openapi.json`."""

from __future__ import annotations

from frontend.routes.json_schema import BOOLEAN, RID, STRING, TOKEN_ID, Schema, array, integer, one_of, ref
from frontend.routes.operations import EVENTS, JSON, answered, describe, path_parameter, starting_call, success
from frontend.routes.responses import ITEMS_MAX, ORDERS, SEQUENCE_MAX

_EITHER: Schema = {JSON: {"schema": ref("Response")}, EVENTS: {"schema": ref("ResponseEvent")}}
_INCLUDE = {"include": array(STRING)}
_RID = path_parameter("rid", RID)

RESPONSES: dict[str, Schema] = {
    "/v1/responses": {
        "post": starting_call(
            "ResponseCall",
            answered("the response, or its event stream", _EITHER),
            "Create a response; in the background it is answered at once",
        )
    },
    "/v1/responses/{rid}": {
        "parameters": [_RID],
        "get": describe(
            "Retrieve a response as it is now, or stream its events behind one of them",
            {"200": answered("the response, or its event stream", _EITHER)},
            404,
            503,
            query={
                "stream": BOOLEAN,
                "starting_after": integer(0, SEQUENCE_MAX),
                "include_obfuscation": BOOLEAN,
                **_INCLUDE,
            },
            headers={"Last-Event-ID": TOKEN_ID},
        ),
        "delete": describe(
            "Delete the content of a response, and cancel it if it has not ended", success(ref("Deleted")), 404, 503
        ),
    },
    "/v1/responses/{rid}/cancel": {
        "parameters": [_RID],
        "post": describe("Cancel a response in the background", success(ref("Response")), 404, 503),
    },
    "/v1/responses/{rid}/input_items": {
        "parameters": [_RID],
        "get": describe(
            "List the items of the input of a response",
            success(ref("InputItems")),
            404,
            503,
            query={"limit": integer(1, ITEMS_MAX), "order": one_of(*ORDERS), "after": STRING, **_INCLUDE},
        ),
    },
}
"""By path."""
