"""Where Redis is: one server, the primary that Sentinels name, or a Cluster.

    redis://[user:password@]host:port/db              rediss:// with TLS, unix:///path?db=0
    redis+sentinel://[user:password@]host:port,host:port/service[/db]?sentinel_username=…&sentinel_password=…
    redis+cluster://[user:password@]host:port,host:port

`rediss+sentinel://` and `rediss+cluster://` use TLS. Further options after `?` are those of redis-py's URLs
(`ssl_ca_certs`, …). Of a Cluster or of Sentinels some addresses are enough: the rest is learnt from them.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from urllib.parse import parse_qsl, quote, unquote, urlencode, urlsplit

SENTINEL_PORT = 26379
REDIS_PORT = 6379
_PREFIXES = ("redis+", "rediss+")


class Kind(StrEnum):
    SINGLE = "single"
    SENTINEL = "sentinel"
    CLUSTER = "cluster"


@dataclass(frozen=True, slots=True)
class Address:
    """`url` is as given; it reaches a single server, `node_url` one server of the other kinds."""

    kind: Kind
    url: str = field(repr=False)  # may hold a password
    nodes: tuple[tuple[str, int], ...] = ()
    service: str = ""
    database: int = 0
    tls: bool = False
    credentials: str = field(default="", repr=False)  # as they stand in a URL, with the @
    options: tuple[tuple[str, str], ...] = ()
    sentinel_username: str = ""
    sentinel_password: str = field(default="", repr=False)

    def node_url(self, host: str, port: int) -> str:
        """One server of this deployment, with its credentials and options."""
        shown = f"[{host}]" if ":" in host else host
        query = f"?{urlencode(self.options)}" if self.options else ""
        return f"{'rediss' if self.tls else 'redis'}://{self.credentials}{shown}:{port}/{self.database}{query}"


def kind_of(url: str) -> Kind:
    scheme = url.partition("://")[0].lower()
    for prefix in _PREFIXES:
        if scheme.startswith(prefix) and scheme.removeprefix(prefix) in (Kind.SENTINEL, Kind.CLUSTER):
            return Kind(scheme.removeprefix(prefix))
    return Kind.SINGLE


def parse(url: str) -> Address:
    """Raises ValueError with one line, which never holds the URL: there may be a password in it."""
    kind = kind_of(url)
    if kind is Kind.SINGLE:
        return Address(kind, url)
    parts = urlsplit(url)
    user_info, at, hosts = parts.netloc.rpartition("@")
    nodes = tuple(_node(item, SENTINEL_PORT if kind is Kind.SENTINEL else REDIS_PORT) for item in hosts.split(","))
    options = dict(parse_qsl(parts.query))
    sentinel_username, sentinel_password = options.pop("sentinel_username", ""), options.pop("sentinel_password", "")
    service, _, database = parts.path.strip("/").partition("/")
    if kind is Kind.CLUSTER:
        if service not in ("", "0"):
            raise ValueError("a Redis Cluster has database 0 only: end the URL after the last host:port")
        service = ""
    elif not service:
        raise ValueError("name the service behind the Sentinels: redis+sentinel://host:port,host:port/SERVICE")
    return Address(
        kind=kind,
        url=url,
        nodes=nodes,
        service=unquote(service),
        database=_database(database),
        tls=parts.scheme.lower().startswith("rediss"),
        credentials=_credentials(user_info) + at,
        options=tuple(options.items()),
        sentinel_username=sentinel_username,
        sentinel_password=sentinel_password,
    )


def _node(text: str, default_port: int) -> tuple[str, int]:
    host, colon, port = text.rpartition(":")
    if not colon or port.endswith("]"):
        host, port = text, str(default_port)
    host = host.strip("[]")
    if not host or not port.isdecimal() or not 0 < int(port) < 65536:
        raise ValueError("give the nodes as host:port,host:port")
    return host, int(port)


def _database(text: str) -> int:
    if text and not text.isdecimal():
        raise ValueError("the database must be a number: redis+sentinel://host:port/SERVICE/0")
    return int(text or 0)


def _credentials(user_info: str) -> str:
    """Quoted once, whether they came quoted or not."""
    user, colon, password = user_info.partition(":")
    return quote(unquote(user), safe="") + colon + quote(unquote(password), safe="")
