"""URLs of a Redis deployment: a single server, the primary that Sentinels name, or a Redis Cluster.

    redis://[user:password@]host:port/db              rediss:// with TLS, unix:///path?db=0
    redis+sentinel://[user:password@]host:port,host:port/service[/db]?sentinel_username=…&sentinel_password=…
    redis+cluster://[user:password@]host:port,host:port

`rediss+sentinel://` and `rediss+cluster://` use TLS. Further options after `?` are those in OPTIONS and, with TLS,
TLS_OPTIONS; redis-py's documentation describes them. Some of the Sentinels or of the Redis Cluster's nodes are enough,
as they name the others.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from urllib.parse import SplitResult, parse_qsl, quote, unquote, urlencode, urlsplit

SENTINEL_PORT = 26379
REDIS_PORT = 6379
_PREFIXES = ("redis+", "rediss+")
_SCHEMES = ("redis", "rediss", "unix")

OPTIONS = frozenset(
    {
        "client_name",
        "db",
        "decode_responses",
        "health_check_interval",
        "password",
        "protocol",
        "retry_on_timeout",
        "socket_connect_timeout",
        "socket_keepalive",
        "socket_read_size",
        "socket_timeout",
        "username",
    }
)
TLS_OPTIONS = frozenset(
    {
        "ssl_ca_certs",
        "ssl_ca_data",
        "ssl_ca_path",
        "ssl_cert_reqs",
        "ssl_certfile",
        "ssl_check_hostname",
        "ssl_ciphers",
        "ssl_keyfile",
        "ssl_min_version",
        "ssl_password",
    }
)
_SENTINEL_OPTIONS = frozenset({"sentinel_username", "sentinel_password"})


class Kind(StrEnum):
    """The kind of a deployment."""

    SINGLE = "single"
    SENTINEL = "sentinel"
    CLUSTER = "cluster"


@dataclass(frozen=True, slots=True)
class RedisUrl:
    """A parsed URL. `url` is the text as given, for a single server; the other kinds have `nodes`."""

    kind: Kind
    url: str = field(repr=False)  # may hold a password
    nodes: tuple[tuple[str, int], ...] = ()
    service: str = ""
    database: int = 0
    tls: bool = False
    credentials: str = field(default="", repr=False)  # quoted for a URL, with the @
    options: tuple[tuple[str, str], ...] = ()
    sentinel_username: str = ""
    sentinel_password: str = field(default="", repr=False)

    def node_url(self, host: str, port: int) -> str:
        """Return the URL of one server of this deployment, with its credentials and options."""
        shown = f"[{host}]" if ":" in host else host
        query = f"?{urlencode(self.options)}" if self.options else ""
        return f"{'rediss' if self.tls else 'redis'}://{self.credentials}{shown}:{port}/{self.database}{query}"


def kind_of(url: str) -> Kind:
    """Return the kind of deployment that the URL's scheme names."""
    scheme = url.partition("://")[0].lower()
    for prefix in _PREFIXES:
        if scheme.startswith(prefix) and scheme.removeprefix(prefix) in (Kind.SENTINEL, Kind.CLUSTER):
            return Kind(scheme.removeprefix(prefix))
    return Kind.SINGLE


def parse(url: str) -> RedisUrl:
    """Parse a URL.

    Raises ValueError when it is malformed. The message is one line and never holds the URL, which may have a password.
    """
    kind, parts = kind_of(url), urlsplit(url)
    _check(kind, parts)
    if kind is Kind.SINGLE:
        return RedisUrl(kind, url)
    user_info, at, hosts = parts.netloc.rpartition("@")
    nodes = tuple(_node(item, SENTINEL_PORT if kind is Kind.SENTINEL else REDIS_PORT) for item in hosts.split(","))
    options = dict(parse_qsl(parts.query))
    sentinel_username, sentinel_password = options.pop("sentinel_username", ""), options.pop("sentinel_password", "")
    service, _, database = parts.path.strip("/").partition("/")
    if kind is Kind.CLUSTER:
        if service not in ("", "0"):
            raise ValueError("a Redis Cluster has only database 0: end the URL after the last host:port")
        service = ""
    elif not service:
        raise ValueError("the URL must name the service of the Sentinels: redis+sentinel://host:port,host:port/SERVICE")
    return RedisUrl(
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


def _check(kind: Kind, parts: SplitResult) -> None:
    """Raise ValueError for what redis-py would take for something else, or refuse with its connections."""
    scheme = parts.scheme.lower()
    if kind is Kind.SINGLE and scheme not in _SCHEMES:
        raise ValueError("the URL must begin with redis://, rediss://, unix://, redis+sentinel:// or redis+cluster://")
    behind = parts.path + parts.fragment if scheme != "unix" else parts.fragment
    if "@" in behind or ("@" in parts.query and "@" not in parts.netloc) or parts.fragment:
        raise ValueError("write the password's # as %23, / as %2F, ? as %3F and @ as %40")
    if kind is Kind.SINGLE and scheme != "unix":
        _node(parts.netloc.rpartition("@")[2] or "localhost", REDIS_PORT)
        _database(parts.path.strip("/"))
    tls = scheme.startswith("rediss")
    known = OPTIONS | (TLS_OPTIONS if tls else set()) | (_SENTINEL_OPTIONS if kind is Kind.SENTINEL else set())
    for name, value in parse_qsl(parts.query, keep_blank_values=True):
        if name not in known:
            advice = "it needs rediss://" if name in TLS_OPTIONS else f"the options are {', '.join(sorted(known))}"
            raise ValueError(f"the option {name!r:.50} after the ? cannot be used here: {advice}")
        if name == "protocol" and value != "2":
            raise ValueError(f"the option protocol={value:.10} cannot be used; leave it out")


def _node(text: str, default_port: int) -> tuple[str, int]:
    host, colon, port = text.rpartition(":")
    if not colon or port.endswith("]"):
        host, port = text, str(default_port)
    host = host.strip("[]")
    if not host or not port.isdecimal() or not 0 < int(port) < 65536:
        raise ValueError("write each server as host:port, with a port from 1 to 65535")
    return host, int(port)


def _database(text: str) -> int:
    if text and not text.isdecimal():
        raise ValueError(f"the database must be a number, as in redis://host:port/0, not {text!r:.50}")
    return int(text or 0)


def _credentials(user_info: str) -> str:
    """Return the credentials quoted once, whether or not they were quoted before."""
    user, colon, password = user_info.partition(":")
    return quote(unquote(user), safe="") + colon + quote(unquote(password), safe="")
