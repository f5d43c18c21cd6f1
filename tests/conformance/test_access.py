"""Keys, roles, log-ins and limits: two frontends with keys in the cluster whose others have none."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import httpx2
import openai
import pytest

from frontend.auth.policy import RULES, Level
from frontend.auth.sessions import COOKIE
from lifecycle.store.connect import open_store
from tests.cluster import Cluster
from tests.conformance.calls import cancel, ended, endless, lists, refusal, until
from tests.keys import LIMIT, Keys
from tests.sse import chat, post

NewId = Callable[[], str]
NOBODY = {"Authorization": "Bearer lc-not-a-key"}


@dataclass(frozen=True)
class Guarded:
    urls: list[str]
    keys: Keys


@pytest.fixture(scope="module")
def guarded(shared: Cluster, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Guarded]:
    keys = Keys.make(tmp_path_factory.mktemp("keys"))
    settings = shared.settings.model_copy(update={"api_keys": str(keys.file), "queue_limit": 1000})
    with asyncio.Runner(loop_factory=asyncio.new_event_loop) as runner:
        http = httpx2.AsyncClient(trust_env=False)
        own = Cluster(settings, keys.file.parent, http)
        try:
            runner.run(_limit_queues(shared, settings.queue_limit))
            frontends = [runner.run(own.frontend()) for _ in range(2)]
            yield Guarded([frontend.url for frontend in frontends], keys)
        finally:
            runner.run(own.close())
            runner.run(http.aclose())
            runner.run(_limit_queues(shared, shared.settings.queue_limit))


async def _limit_queues(cluster: Cluster, limit: int) -> None:
    """Change the limit for the running cluster, as `lifecycle settings set` does."""
    async with open_store(cluster.settings) as store:
        assert await store.configure("queue_limit", limit)


async def head(
    http: httpx2.AsyncClient, method: str, url: str, headers: dict[str, str], **more: Any
) -> httpx2.Response:
    """The whole answer, but for an endless stream: of that the head."""
    async with http.stream(method, url, headers=headers, **more) as answer:
        if "text/event-stream" not in answer.headers.get("content-type", ""):
            await answer.aread()
        return answer


class Caller:
    """Calls with one key, at either frontend."""

    def __init__(self, http: httpx2.AsyncClient, guarded: Guarded, name: str) -> None:
        self.http = http
        self.urls = guarded.urls
        self.headers = guarded.keys.bearer(name)

    async def call(self, method: str, path: str, at: int = 0, **more: Any) -> httpx2.Response:
        return await head(self.http, method, self.urls[at] + path, self.headers | more.pop("headers", {}), **more)

    async def send(self, body: dict[str, Any], at: int = 0, **headers: str) -> httpx2.Response:
        names = {name.replace("_", "-"): value for name, value in headers.items()}
        return await self.call("POST", "/v1/chat/completions", at, json=body, headers=names)


@pytest.fixture
def acme(cluster: Cluster, guarded: Guarded) -> Caller:
    return Caller(cluster.http, guarded, "acme")


@pytest.fixture
def globex(cluster: Cluster, guarded: Guarded) -> Caller:
    return Caller(cluster.http, guarded, "globex")


@pytest.fixture
def ops(cluster: Cluster, guarded: Guarded) -> Caller:
    return Caller(cluster.http, guarded, "ops")


@pytest.mark.parametrize(("method", "rule"), [(m, rule) for rule in RULES for m in rule.methods.split()])
async def test_each_call_takes_what_the_table_says(
    cluster: Cluster, guarded: Guarded, acme: Caller, ops: Caller, method: str, rule: Any
) -> None:
    path = re.sub(r"\{[^}]+\}", "unknown", rule.path)
    for headers in ({}, NOBODY, {"Authorization": "Basic YTpi"}):
        answer = await head(cluster.http, method, guarded.urls[0] + path, headers)
        if rule.level is Level.ANYBODY:
            assert answer.status_code not in (401, 403)
        else:
            if path.startswith("/v1/messages"):
                assert (answer.status_code, answer.json()["error"]["type"]) == (401, "authentication_error")
            else:
                assert refusal(answer, 401)["code"] == "invalid_api_key"
            assert answer.headers["x-should-retry"] == "false"
            assert answer.headers["www-authenticate"] == "Bearer"
    answer = await acme.call(method, path)
    if rule.level is Level.OPERATOR:
        assert refusal(answer, 403)["code"] == "insufficient_permissions"
    else:
        assert answer.status_code not in (401, 403)
    assert (await ops.call(method, path)).status_code not in (401, 403)


@pytest.mark.parametrize("path", ["/docs", "/v1/unknown", "/v1/requests/a/b", "//metrics"])
async def test_what_does_not_exist_is_unknown_to_everybody(
    cluster: Cluster, guarded: Guarded, acme: Caller, ops: Caller, path: str
) -> None:
    for answer in (
        await acme.call("GET", path),
        await ops.call("GET", path),
        await cluster.http.get(guarded.urls[0] + path),
    ):
        message = refusal(answer, 404)["message"]
        assert ("base URL" in message) == path.startswith("//")


async def test_the_sdk_tells_the_refusals_apart_and_does_not_repeat_them(guarded: Guarded) -> None:
    async def ask(key: str, path: str) -> None:
        async with openai.AsyncOpenAI(base_url=f"{guarded.urls[0]}/v1", api_key=key, timeout=20) as client:
            await client.get(path, cast_to=object)

    with pytest.raises(openai.AuthenticationError):
        await ask("lc-wrong", "/models")
    with pytest.raises(openai.PermissionDeniedError):
        await ask(guarded.keys.of["acme"], "/inflight")
    await ask(guarded.keys.of["acme"], "/models")


async def test_another_tenants_request_is_unknown_everywhere(
    cluster: Cluster, acme: Caller, globex: Caller, ops: Caller, rid: str
) -> None:
    paths = ("/timeline", "/tree", "/stream")
    calls = [("GET", ""), ("DELETE", ""), *(("GET", path) for path in paths), ("POST", "/cancel")]
    async with post(cluster.http, acme.urls[0], endless(), X_Request_Id=rid, **acme.headers) as stream:
        await stream.read_tokens(1)
        for method, path in calls:
            theirs = refusal(await globex.call(method, f"/v1/requests/{rid}{path}", 1), 404)
            nobodys = refusal(await globex.call(method, f"/v1/requests/nobody{path}", 1), 404)
            assert theirs["message"].replace(rid, "nobody") == nobodys["message"]
        assert lists(await globex.call("GET", "/v1/requests?status=inflight", 1)) == []
        refusal(await globex.call("GET", f"/v1/requests?after={rid}", 1), 400)
        record = (await acme.call("GET", f"/v1/requests/{rid}", 1)).json()
        assert record["status"] == "running", "nothing was done to it"
        assert record["cancel_requested_at"] is None
        assert lists(await acme.call("GET", "/v1/requests?status=inflight", 1)) == [rid]
        assert rid in lists(await ops.call("GET", "/v1/requests?status=inflight"))
        assert (await ops.call("GET", f"/v1/requests/{rid}")).status_code == 200
        assert (await acme.call("POST", f"/v1/requests/{rid}/cancel?wait_ms=10000", 1)).status_code == 200


async def test_another_tenants_request_is_nobodys_parent(
    cluster: Cluster, acme: Caller, globex: Caller, ops: Caller, new_id: NewId
) -> None:
    top, child = new_id(), new_id()

    async def start(caller: Caller, parent: str, rid: str) -> httpx2.Response:
        headers = {"X-Parent-Request-Id": parent, "X-Request-Id": rid, **caller.headers}
        url = f"{acme.urls[1]}/v1/chat/completions"
        return await cluster.http.post(url, json=chat("x", stream=False), headers=headers)

    async with post(cluster.http, acme.urls[0], endless(), X_Request_Id=top, **acme.headers) as stream:
        await stream.read_tokens(1)
        theirs, nobodys = (
            refusal(await start(globex, top, child), 404),
            refusal(await start(globex, "nobody", child), 404),
        )
        assert theirs == nobodys | {"message": nobodys["message"].replace("nobody", top)}
        assert (await start(ops, top, child)).status_code == 200
        shown = (await acme.call("GET", f"/v1/requests/{top}/tree")).json()
        assert [node["id"] for node in shown["data"]] == [top], "the operator's request is not the owner's to see"


async def test_a_client_cancels_its_own_only_however_much_matches(
    cluster: Cluster, acme: Caller, globex: Caller, new_id: NewId
) -> None:
    theirs, own = new_id(), new_id()
    async with (
        post(cluster.http, acme.urls[0], endless(), X_Request_Id=theirs, **acme.headers) as first,
        post(cluster.http, acme.urls[0], endless(), X_Request_Id=own, **globex.headers) as second,
    ):
        await first.read_tokens(1)
        await second.read_tokens(1)
        refusal(await globex.call("POST", "/v1/requests/cancel", json={}), 400)
        answer = await globex.call("POST", "/v1/requests/cancel", 1, json={"status": "inflight"})
        assert [record["id"] for record in answer.json()["data"]] == [own]
        refusal(await globex.call("POST", "/v1/requests/cancel", json={"model": "echo", "after": theirs}), 400)
        await ended(cluster, own)
        assert (await cluster.record(theirs))["cancel_requested_at"] is None
        await cancel(cluster, theirs)


async def test_operators_filter_and_cancel_by_owner(
    cluster: Cluster, acme: Caller, globex: Caller, ops: Caller, new_id: NewId
) -> None:
    theirs, own = new_id(), new_id()
    async with (
        post(cluster.http, acme.urls[0], endless(), X_Request_Id=theirs, **acme.headers) as first,
        post(cluster.http, acme.urls[0], endless(), X_Request_Id=own, **globex.headers) as second,
    ):
        await first.read_tokens(1)
        await second.read_tokens(1)
        assert lists(await ops.call("GET", "/v1/requests?status=inflight&owner=acme", 1)) == [theirs]
        assert lists(await globex.call("GET", "/v1/requests?status=inflight&owner=globex", 1)) == [own]
        assert lists(await globex.call("GET", "/v1/requests?status=inflight&owner=acme", 1)) == []
        assert lists(await globex.call("POST", "/v1/requests/cancel", json={"owner": "acme"})) == []
        assert lists(await ops.call("POST", "/v1/requests/cancel", 1, json={"owner": "acme"})) == [theirs]
        await globex.call("DELETE", f"/v1/requests/{own}", 0)
        of_theirs, of_own = await ended(cluster, theirs), await ended(cluster, own)
    assert [of_theirs["owner"], of_theirs["cancelled_by"]] == ["acme", "operator:ops"]
    assert (of_own["cancelled_by"], of_own["cancelled_via"]) == ("owner:globex", of_own["frontend"])


async def test_an_idempotency_key_is_a_names_own(acme: Caller, globex: Caller, rid: str) -> None:
    sent = {"Idempotency_Key": rid}
    first = await acme.send(chat("x", stream=False), 0, **sent)
    again = await acme.send(chat("x", stream=False), 1, **sent)
    assert again.headers["x-request-id"] == first.headers["x-request-id"]
    other = await globex.send(chat("x", stream=False), 0, **sent)
    assert other.status_code == 200
    assert other.headers["x-request-id"] != first.headers["x-request-id"]


async def test_a_repeated_call_attaches_though_its_key_has_no_share_left(
    cluster: Cluster, acme: Caller, new_id: NewId
) -> None:
    standing = [new_id() for _ in range(LIMIT)]
    for rid in standing:
        async with post(
            cluster.http,
            acme.urls[0],
            endless(),
            Idempotency_Key=rid,
            X_On_Disconnect="continue",
            X_Request_Id=rid,
            **acme.headers,
        ):
            pass
    async with post(
        cluster.http, acme.urls[1], endless(), Idempotency_Key=standing[0], X_On_Disconnect="continue", **acme.headers
    ) as stream:
        assert stream.response.status_code == 200
        assert stream.response.headers["x-request-id"] == standing[0]
    refusal(await acme.send(endless(), 1, Idempotency_Key="another"), 429)
    for rid in standing:
        await cancel(cluster, rid)


async def test_a_client_pages_through_its_own_requests_only(acme: Caller, globex: Caller, new_id: NewId) -> None:
    own = [new_id() for _ in range(3)]
    for rid in own:
        assert (await globex.send(chat("x", stream=False), X_Request_Id=rid)).status_code == 200
        assert (await acme.send(chat("x", stream=False))).status_code == 200
    seen = lists(await globex.call("GET", "/v1/requests?limit=2"))
    assert seen == own[:0:-1]
    assert lists(await globex.call("GET", f"/v1/requests?limit=1&after={seen[-1]}")) == own[:1]


async def test_exactly_the_limit_is_admitted_however_many_come_at_once(cluster: Cluster, acme: Caller) -> None:
    async def call(number: int) -> tuple[int, str]:
        """The response to a refusal is whole; that to an admission is left open: only its head is waited for."""
        url, body = acme.urls[number % 2] + "/v1/chat/completions", endless()
        headers = acme.headers | {"X-On-Disconnect": "continue"}
        async with cluster.http.stream("POST", url, json=body, headers=headers) as answer:
            if answer.status_code == 429:
                await answer.aread()
                assert refusal(answer, 429)["code"] == "inflight_limit"
                assert int(answer.headers["retry-after"]) >= 1
            return answer.status_code, answer.headers["x-request-id"]

    for _ in range(2):  # and again once they have ended: nothing has to be given back
        answers = await asyncio.gather(*(call(number) for number in range(100)))
        admitted = [rid for status, rid in answers if status == 200]
        assert len(admitted) == LIMIT
        assert {status for status, _ in answers} == {200, 429}
        await asyncio.gather(*(cancel(cluster, rid) for rid in admitted))


async def test_calls_one_after_the_other_are_never_refused(cluster: Cluster, acme: Caller, new_id: NewId) -> None:
    """The moment an answer is there its share can be taken again, at any frontend."""
    standing = [new_id() for _ in range(LIMIT - 1)]
    for rid in standing:
        async with post(
            cluster.http, acme.urls[0], endless(), X_Request_Id=rid, X_On_Disconnect="continue", **acme.headers
        ):
            pass
    statuses = [(await acme.send(chat("x", stream=False), number % 2)).status_code for number in range(20)]
    assert statuses == [200] * 20
    for rid in standing:
        await cancel(cluster, rid)


async def test_a_refused_admission_takes_no_share(cluster: Cluster, acme: Caller, rid: str) -> None:
    async with post(cluster.http, acme.urls[0], endless(), X_Request_Id=rid, **acme.headers) as stream:
        await stream.read_tokens(1)
        answers = [await acme.send(chat("x", stream=False), 1, X_Request_Id=rid) for _ in range(2 * LIMIT)]
        assert {answer.status_code for answer in answers} == {409}
        assert (await acme.send(chat("x", stream=False), 1)).status_code == 200
        await cancel(cluster, rid)


async def test_the_sdk_is_told_of_the_limit_and_fits_in_again(
    cluster: Cluster, guarded: Guarded, acme: Caller, new_id: NewId
) -> None:
    standing = [new_id() for _ in range(LIMIT)]
    for rid in standing:
        async with post(
            cluster.http, acme.urls[0], endless(), X_Request_Id=rid, X_On_Disconnect="continue", **acme.headers
        ):
            pass
    async with openai.AsyncOpenAI(
        base_url=f"{guarded.urls[1]}/v1", api_key=guarded.keys.of["acme"], timeout=20, max_retries=0
    ) as client:
        with pytest.raises(openai.RateLimitError):
            await client.chat.completions.create(model="echo", messages=[{"role": "user", "content": "x"}])
        for rid in standing:
            await cancel(cluster, rid)
            await ended(cluster, rid)
        await client.chat.completions.create(model="echo", messages=[{"role": "user", "content": "x"}])


async def log_in(http: httpx2.AsyncClient, url: str, key: str, **headers: str) -> httpx2.Response:
    return await http.post(url + "/login", json={"key": key}, headers=headers)


async def test_a_log_in_holds_at_every_frontend_and_hides_the_key(cluster: Cluster, guarded: Guarded) -> None:
    key, (a, b) = guarded.keys.of["ops"], guarded.urls
    assert (await cluster.http.get(a + "/v1/session")).json() == {"authentication": "on", "authenticated": False}
    answer = await log_in(cluster.http, a, key)
    assert answer.status_code == 204
    cookie = answer.headers["set-cookie"]
    assert {"HttpOnly", "SameSite=strict", "Path=/", "Max-Age=43200"} <= set(cookie.split("; "))
    assert "Secure" not in cookie
    assert key not in cookie
    secure = await log_in(cluster.http, a, key, **{"X-Forwarded-Proto": "https"})
    assert "Secure" in secure.headers["set-cookie"].split("; ")
    jar = {"Cookie": cookie.partition(";")[0]}
    who = (await cluster.http.get(b + "/v1/session", headers=jar)).json()
    assert who == {"authentication": "on", "authenticated": True, "name": "ops", "role": "operator"}
    assert (await cluster.http.get(b + "/v1/inflight", headers=jar)).status_code == 200
    out = await cluster.http.post(b + "/logout", headers=jar)
    assert out.status_code == 204
    assert "Max-Age=0" in out.headers["set-cookie"]


async def test_a_cookie_counts_for_this_frontends_own_page_only(cluster: Cluster, guarded: Guarded, rid: str) -> None:
    url = guarded.urls[0]
    cookie = (await log_in(cluster.http, url, guarded.keys.of["acme"])).headers["set-cookie"].partition(";")[0]
    jar = {"Cookie": cookie}
    for other in ({}, {"Origin": "http://evil.example"}, {"Sec-Fetch-Site": "same-site", "Origin": url}):
        answer = await cluster.http.post(f"{url}/v1/requests/{rid}/cancel", headers=jar | other)
        assert refusal(answer, 403)["code"] == "cross_origin"
    for own in ({"Origin": url}, {"Sec-Fetch-Site": "same-origin"}):
        refusal(await cluster.http.post(f"{url}/v1/requests/{rid}/cancel", headers=jar | own), 404)
    assert (await cluster.http.get(f"{url}/v1/inflight", headers=jar)).status_code == 403, "the role is the key's"
    name, expires, signature = cookie.removeprefix(f"{COOKIE}=").split(":")
    for forged in (f"ops:{expires}:{signature}", f"{name}:{int(expires) + 1}:{signature}", f"{name}:{expires}:", "x"):
        refusal(await cluster.http.get(f"{url}/v1/models", headers={"Cookie": f"{COOKIE}={forged}"}), 401)


async def test_a_wrong_key_does_not_log_in(cluster: Cluster, guarded: Guarded) -> None:
    url = guarded.urls[0]
    answer = await log_in(cluster.http, url, "lc-wrong")
    assert refusal(answer, 401)["code"] == "invalid_api_key"
    assert "set-cookie" not in answer.headers
    refusal(await cluster.http.post(url + "/login", content="{"), 400)
    refusal(await cluster.http.post(url + "/login", json={"key": 1}), 400)
    refusal(await cluster.http.post(url + "/login", content="x" * 5000), 413)
    refusal(await log_in(cluster.http, url, guarded.keys.of["ops"], Origin="http://evil.example"), 403)


async def test_without_keys_everybody_may_do_everything(cluster: Cluster, rid: str) -> None:
    url = cluster.frontends[0].url
    assert (await cluster.http.get(url + "/v1/session", headers=NOBODY)).json() == {"authentication": "off"}
    assert (await cluster.http.get(url + "/metrics", headers=NOBODY)).status_code == 200
    assert refusal(await log_in(cluster.http, url, "x"), 404)["code"] == "no_keys"
    async with post(cluster.http, url, endless(), X_Request_Id=rid, **NOBODY):
        await until(cluster, rid, "running")
        await cancel(cluster, rid)


async def test_a_refusal_is_safe_in_a_browser_too(cluster: Cluster, guarded: Guarded) -> None:
    refused = await cluster.http.get(guarded.urls[0] + "/v1/models")
    assert (refused.status_code, refused.headers["x-content-type-options"]) == (401, "nosniff")
