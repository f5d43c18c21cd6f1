"""Every key in Redis: its name, type, life time and meaning. Nothing else in Python or Lua invents one.

A shard key starts with `<namespace>:{<tag>}:`, so everything about a request is in one slot and every
transition is one script. Control keys start with `<namespace>:{ctl}:`. The Lua scripts are given a prefix as
KEYS[1] and append the names below; a test holds the two together.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import NamedTuple

CONTROL_TAG = "ctl"
SLOTS = 16384


class Key(NamedTuple):
    """One family of keys. `life` says what removes it: a TTL, its owner, or nothing (`permanent`)."""

    name: str
    type: str
    life: str
    what: str


class Channel(NamedTuple):
    """One family of pub/sub channels. `scope`: `all` (PUBLISH), or `shard` (SPUBLISH; the name has its prefix)."""

    name: str
    scope: str
    what: str


SHARD_KEYS = (
    Key("request:", "hash", "retention after the end; before it, the reaper owns it", "<rid>: the record"),
    Key("body:", "string", "deleted at the end", "<rid>: what was asked, for its worker"),
    Key("tokens:", "stream", "retention after the end", "<rid>: the token stream, ids <attempt>-<number>"),
    Key("readers:", "hash", "deleted at the end", "<rid>: frontend → number of its HTTP readers"),
    Key("named:", "string", "TTL of half an hour and the retention", "<hash of an idempotency key>: a request id"),
    Key("queue:", "stream", "permanent, one per known model", "<model>: requests not started; group `workers`"),
    Key("retry:", "stream", "permanent, one per known model", "<model>: requests to try again, read first"),
    Key("inflight:", "hash", "its frontend's lease; the reaper deletes it", "<frontend>: rid → labels"),
    Key(
        "counts:",
        "hash",
        "its frontend's lease; the reaper deletes it",
        "<frontend>: state and labels → number",
    ),
    Key(
        "running:",
        "hash",
        "its worker's lease; the reaper deletes it",
        "<worker>: rid it runs → the frontends that read it",
    ),
    Key(
        "pending_cancellations:",
        "set",
        "its worker's lease; the reaper deletes it",
        "<worker>: rids whose cancel it must hear of",
    ),
    Key("fenced:", "string", "TTL of a day", "<replica>: buried; admit, start, append and renew refuse it"),
    Key("created", "zset", "members trimmed by sweep", "rid by created_at, for the listing"),
    Key("active", "zset", "members removed at the end", "rid by created_at, not terminal"),
    Key("deadlines", "zset", "members removed when due or at the end", "<kind>|<rid> by the time it is due"),
    Key("expiries", "zset", "members trimmed by sweep", "rid by the time its record expires"),
    Key(
        "quota_slots:",
        "zset",
        "TTL of 30 days, renewed by reserve; members are removed by whoever needs one",
        "<owner>: <rid>|<nonce> by the time it must have been admitted; in the shard of the owner's name",
    ),
    Key("totals", "hash", "permanent, bounded by labels", "terminal counters and reaped counters"),
    Key("epoch", "string", "permanent", "changes when this shard has lost its data"),
)

CONTROL_KEYS = (
    Key("frontends", "zset", "members removed when buried", "frontend by lease expiry"),
    Key("workers", "zset", "members removed when buried", "worker by lease expiry"),
    Key("replica:", "hash", "TTL renewed by beat", "<replica>: what it says of itself"),
    Key(
        "models",
        "zset",
        "permanent, at most 1000 members",
        "known model by when a live worker last beat, or its lease ended",
    ),
    Key("config", "hash", "permanent", "the settings that must be common"),
    Key("expired_replicas", "zset", "members trimmed after a day", "buried replica by when"),
    Key(
        "pending_cleanup",
        "hash",
        "members removed once every shard is reaped",
        "buried replica → what the reaper needs",
    ),
    Key("secret", "string", "permanent", "signs the dashboard's log-ins"),
    Key("clock", "hash", "permanent", "last time seen, and the grace after a silence"),
)

CHANNELS = (
    Channel("request:<rid>", "all", "a client's connection status, a cancel, the end: JSON objects with a `type`"),
    Channel("worker:<worker>", "all", "the cancels it must hear of: objects with `type`, `rid`, `mode` and `reason`"),
    Channel("inbox:<frontend>", "shard", "frames of tokens and events, `[[rid, entry id, tokens or event], …]`"),
)


def crc16(data: bytes) -> int:
    """CRC-16/XMODEM, the hash of Redis Cluster's key slots."""
    crc = 0
    for byte in data:
        crc = ((crc << 8) & 0xFFFF) ^ _CRC16[(crc >> 8) ^ byte]
    return crc


def _crc16_entry(byte: int) -> int:
    crc = byte << 8
    for _ in range(8):
        crc = ((crc << 1) ^ 0x1021) if crc & 0x8000 else crc << 1
    return crc & 0xFFFF


_CRC16 = tuple(_crc16_entry(byte) for byte in range(256))


@cache
def shard_tags(shards: int) -> tuple[str, ...]:
    """One hash tag a shard; the slots of the tags lie evenly over the 16384, so a Cluster shares them evenly."""
    if shards == 1:
        return ("0",)
    bounds = [-(-k * SLOTS // shards) for k in range(shards + 1)]  # rounded up: each part is a whole range of slots
    return tuple(_tag_in(k, bounds[k], bounds[k + 1]) for k in range(shards))


def _tag_in(shard: int, low: int, high: int) -> str:
    suffix = 0
    while True:
        tag = f"{shard}.{suffix}"
        if low <= crc16(tag.encode()) % SLOTS < high:
            return tag
        suffix += 1


@dataclass(frozen=True, slots=True)
class Keys:
    """The key space of one namespace."""

    namespace: str
    shards: int

    @property
    def control(self) -> str:
        """Prefix of the control keys."""
        return f"{self.namespace}:{{{CONTROL_TAG}}}:"

    @property
    def prefixes(self) -> tuple[str, ...]:
        """Prefix of each shard."""
        return tuple(f"{self.namespace}:{{{tag}}}:" for tag in shard_tags(self.shards))

    def shard_of(self, rid: str) -> int:
        return crc16(rid.encode()) % self.shards if self.shards > 1 else 0

    def prefix_of(self, rid: str) -> str:
        return self.prefixes[self.shard_of(rid)]

    def channel(self, rid: str) -> str:
        """Where a request's `connection`, `cancel` and `terminal` messages are published."""
        return f"{self.namespace}:request:{rid}"

    def worker_channel(self, worker: str) -> str:
        """Where the cancels that a worker must hear of are published."""
        return f"{self.namespace}:worker:{worker}"

    def inbox(self, shard: int, frontend: str) -> str:
        """The sharded channel on which a shard pushes to a frontend."""
        return f"{self.prefixes[shard]}inbox:{frontend}"
