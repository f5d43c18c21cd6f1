"""The receivers of webhooks: their URLs, the hosts that a caller may name, and which addresses are public."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from ipaddress import ip_address
from typing import Any

import pytest

from lifecycle.settings import SettingsError, load
from lifecycle.webhooks.config import WebhookConfig
from lifecycle.webhooks.sender import Sent, WebhookSender
from lifecycle.webhooks.signature import Signer
from lifecycle.webhooks.target import HostList, Target, is_public
from tests.unit.test_webhook_signature import SECRET


@pytest.mark.parametrize(
    ("address", "public"),
    [
        ("1.1.1.1", True),
        ("8.8.8.8", True),
        ("2606:4700:4700::1111", True),
        ("0.0.0.0", False),
        ("0.1.2.3", False),
        ("10.0.0.1", False),
        ("100.64.0.1", False),
        ("127.0.0.1", False),
        ("127.255.255.254", False),
        ("169.254.169.254", False),
        ("172.16.0.1", False),
        ("172.31.255.255", False),
        ("192.0.0.1", False),
        ("192.0.2.1", False),
        ("192.88.99.1", False),
        ("192.168.1.1", False),
        ("198.18.0.1", False),
        ("198.51.100.1", False),
        ("203.0.113.1", False),
        ("224.0.0.1", False),
        ("239.255.255.255", False),
        ("240.0.0.1", False),
        ("255.255.255.255", False),
        ("::", False),
        ("::1", False),
        ("::ffff:127.0.0.1", False),
        ("::ffff:10.0.0.1", False),
        ("::ffff:8.8.8.8", True),
        ("::127.0.0.1", False),
        ("64:ff9b::7f00:1", False),
        ("64:ff9b::a9fe:a9fe", False),
        ("64:ff9b::808:808", True),
        ("64:ff9b:1::1", False),
        ("100::1", False),
        ("2001::1", False),
        ("2001:db8::1", False),
        ("2002:7f00:1::", False),
        ("2002:808:808::", False),
        ("3fff::1", False),
        ("5f00::1", False),
        ("fc00::1", False),
        ("fd12:3456::1", False),
        ("fe80::1", False),
        ("fe80::1%eth0", False),
        ("fec0::1", False),
        ("ff02::1", False),
    ],
)
def test_only_addresses_of_the_internet_are_public(address: str, public: bool) -> None:
    assert is_public(ip_address(address)) is public


@pytest.mark.parametrize(
    ("url", "reason"),
    [
        ("", "visible"),
        ("https://", "begin with"),
        ("ftp://a.example/", "begin with"),
        ("file:///etc/passwd", "begin with"),
        ("//a.example/", "begin with"),
        ("http://a.example/", "https"),
        ("https://user:password@a.example/", "credentials"),
        ("https://user@a.example/", "credentials"),
        ("https://@a.example/", "credentials"),
        ("https://a.example/#part", "fragment"),
        ("https://a.example/#", "fragment"),
        ("https://a.example:0/", "port"),
        ("https://a.example:65536/", "malformed"),
        ("https://a.example:x/", "malformed"),
        ("https://[::1/", "malformed"),
        ("https://[fe80::1]/", "not a public"),
        ("https://[::ffff:127.0.0.1]/", "not a public"),
        ("https://127.0.0.1/", "not a public"),
        ("https://10.1.2.3:8443/", "not a public"),
        ("https://a.example\\@b.example/", "backslash"),
        ("https://a b.example/", "visible"),
        ("https://a.example/\r\nX: y", "visible"),
        ("https://bücher.example/", "visible"),
        ("https://a..example/", "host"),
        ("https://a.ex*mple/", "host"),
        ("https://" + "a" * 64 + ".example/", "host"),
        ("https://a.example/" + "x" * 2048, "2048"),
    ],
)
def test_a_url_that_must_not_be_used_is_refused_and_not_shown(url: str, reason: str) -> None:
    with pytest.raises(ValueError, match=reason) as failure:
        Target.parse(url, allow_private=False)
    assert "password" not in str(failure.value)
    assert "example" not in str(failure.value)


@pytest.mark.parametrize(
    ("url", "canonical", "authority"),
    [
        ("https://A.Example/Hook?x=1", "https://a.example/Hook?x=1", "a.example"),
        ("https://a.example:443", "https://a.example/", "a.example"),
        ("HTTPS://a.example:8443/?q", "https://a.example:8443/?q", "a.example:8443"),
        ("https://8.8.8.8/x", "https://8.8.8.8/x", "8.8.8.8"),
        ("https://[2606:4700::1111]:444/x", "https://[2606:4700::1111]:444/x", "[2606:4700::1111]:444"),
    ],
)
def test_a_url_has_one_canonical_form(url: str, canonical: str, authority: str) -> None:
    target = Target.parse(url, allow_private=False)
    assert (target.url, target.authority) == (canonical, authority)
    assert Target.parse(canonical, allow_private=False) == target


def test_private_receivers_can_be_allowed() -> None:
    assert Target.parse("http://127.0.0.1:8080/x", allow_private=True).origin == "http://127.0.0.1:8080"
    assert Target.parse("http://receiver/x", allow_private=True).port == 80


@pytest.mark.parametrize(
    ("host", "allowed"),
    [
        ("hooks.example.com", True),
        ("hooks.example.com.", True),
        ("a.other.example", True),
        ("a.b.other.example", True),
        ("2001:db8::1", True),
        ("other.example", False),
        ("another.example", False),
        ("x.hooks.example.com", False),
        ("hooks.example.com.evil.example", False),
        ("example.com", False),
    ],
)
def test_a_caller_may_name_the_listed_hosts_only(host: str, allowed: bool) -> None:
    assert HostList.parse("Hooks.Example.com, *.other.example,[2001:db8::1]").allows(host) is allowed


@pytest.mark.parametrize("text", ["https://a.example", "a.example:443", "*", "a b", "*.", "a.*.example"])
def test_a_list_with_something_else_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="is not a host"):
        HostList.parse(text)


def test_an_empty_list_allows_no_host() -> None:
    assert not HostList.parse("").allows("a.example")


@pytest.mark.parametrize(
    ("settings", "names"),
    [
        ({"webhook_url": "https://a.example/"}, ["LIFECYCLE_WEBHOOK_URL", "LIFECYCLE_WEBHOOK_SECRET"]),
        ({"webhook_hosts": "a.example"}, ["LIFECYCLE_WEBHOOK_HOSTS", "LIFECYCLE_WEBHOOK_SECRET"]),
        ({"webhook_hosts": "a.example", "webhook_secret": "hidden"}, ["LIFECYCLE_WEBHOOK_SECRET"]),
        ({"webhook_hosts": "https://a.example", "webhook_secret": SECRET}, ["LIFECYCLE_WEBHOOK_HOSTS"]),
        ({"webhook_url": "http://hidden.example/", "webhook_secret": SECRET}, ["LIFECYCLE_WEBHOOK_URL"]),
        ({"webhook_url": "https://u:hidden@a.example/", "webhook_secret": SECRET}, ["LIFECYCLE_WEBHOOK_URL"]),
    ],
)
def test_settings_that_cannot_work_stop_the_start(settings: dict[str, Any], names: list[str]) -> None:
    with pytest.raises(SettingsError) as failure:
        WebhookConfig.of(load(settings))
    message = str(failure.value)
    assert all(name in message for name in names)
    assert "\n" not in message
    assert "hidden" not in message


def test_without_a_receiver_webhooks_are_off() -> None:
    assert WebhookConfig.of(load({"webhook_secret": SECRET})) is None


# Sending


@pytest.fixture
async def sender() -> AsyncIterator[WebhookSender]:
    sender = WebhookSender(Signer.parse(SECRET), allow_private=False, timeout_secs=5.0)
    yield sender
    await sender.aclose()


@asynccontextmanager
async def resolving(monkeypatch: pytest.MonkeyPatch, *answers: list[str]) -> AsyncIterator[list[str]]:
    """Answer the look-ups of names by turns, and yield the names that were asked for."""
    loop, asked, left = asyncio.get_running_loop(), list[str](), list(answers)

    async def getaddrinfo(host: str, port: int, **_: Any) -> list[Any]:
        asked.append(host)
        kind = {4: socket.AF_INET, 6: socket.AF_INET6}
        return [(kind[ip_address(text).version], socket.SOCK_STREAM, 6, "", (text, port)) for text in left.pop(0)]

    with monkeypatch.context() as patch:
        patch.setattr(type(loop), "getaddrinfo", lambda _, *args, **named: getaddrinfo(*args, **named))
        yield asked


@pytest.fixture
def listening() -> Iterator[int]:
    """A port of this machine on which connections would be accepted."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.setblocking(False)
        yield server.getsockname()[1]
        with pytest.raises(BlockingIOError):
            server.accept()  # nobody has connected


@pytest.mark.parametrize("answer", [["127.0.0.1"], ["8.8.8.8", "127.0.0.1"], ["::1"], ["::ffff:127.0.0.1"]])
async def test_a_name_with_a_private_address_is_not_connected_to(
    monkeypatch: pytest.MonkeyPatch, sender: WebhookSender, listening: int, answer: list[str]
) -> None:
    async with resolving(monkeypatch, answer):
        sent = await sender.send(f"https://receiver.example:{listening}/", "evt_1", b"{}")
    assert sent == Sent("the host has an address that is not public")


async def test_what_was_checked_is_what_is_connected_to(
    monkeypatch: pytest.MonkeyPatch, sender: WebhookSender, listening: int
) -> None:
    """A name that resolves to a private address when it is looked up again (DNS rebinding) leads nowhere else."""
    connected = []

    async def connect(self: Any, request: Any) -> Any:
        connected.append((request.url.host, request.headers["host"], request.extensions["sni_hostname"]))
        raise OSError

    async with resolving(monkeypatch, ["8.8.8.8"], ["127.0.0.1"]) as asked:
        monkeypatch.setattr(type(sender._transport), "handle_async_request", connect)
        await sender.send(f"https://receiver.example:{listening}/", "evt_1", b"{}")
    assert asked == ["receiver.example"]
    assert connected == [("8.8.8.8", f"receiver.example:{listening}", "receiver.example")]


@pytest.mark.parametrize("host", ["localhost", "0x7f.1", "2130706433", "127.1"])
async def test_other_names_of_this_machine_are_refused(sender: WebhookSender, listening: int, host: str) -> None:
    sent = await sender.send(f"https://{host}:{listening}/", "evt_1", b"{}")
    assert sent.reason in ("the host has an address that is not public", "the host has no address")
