"""Declares every Redis key and channel: name, type, lifetime and content. The code uses no others.

A shard key starts with `<namespace>:{<tag>}:`, so everything about a request is in one slot and every transition is one
script. A control key starts with `<namespace>:{ctl}:`. The Lua scripts get a prefix as KEYS[1] and append the names
below; tests/unit/test_scripts.py compares both.
"""

from __future__ import annotations

import binascii
from dataclasses import dataclass, field
from functools import cache
from typing import NamedTuple

CONTROL_TAG = "ctl"
SLOTS = 16384


class Key(NamedTuple):
    """A family of Redis keys. `life` says what removes it: a TTL, its owner, or nothing (`permanent`).

    A name that ends with a colon is continued by the part of `what` before its first colon.
    """

    name: str
    type: str
    life: str
    what: str


class Channel(NamedTuple):
    """A family of channels.

    `scope` is `all` for PUBLISH, or `shard` for SPUBLISH, where the name follows the shard's prefix.
    """

    name: str
    scope: str
    what: str


SHARD_KEYS = (
    Key("request:", "hash", "TTL: retention after the end", "<rid>: the record"),
    Key("body:", "string", "deleted at the end, or TTL: retention after it", "<rid>: the request's body"),
    Key("tokens:", "stream", "TTL: retention after the end", "<rid>: the token stream; ids are <attempt>-<number>"),
    Key("stored:", "zset", "TTL: retention after the last end", "<owner>: <bytes>|<rid> of kept content by its expiry"),
    Key("stored_bytes:", "string", "TTL: retention after the last end", "<owner>: the sum of the bytes in `stored`"),
    Key("item:", "string", "TTL: retention after the end", "<id of an item of an answer>: rid of kept content with it"),
    Key("overfull", "hash", "members removed by sweep", "owner with too much kept content → bytes that are allowed"),
    Key("readers:", "hash", "deleted at the end", "<rid>: frontend → number of its HTTP readers"),
    Key(
        "lost_start:",
        "string",
        "TTL: retention after the report",
        "<rid>: the last attempt of an unknown request of which somebody has tokens",
    ),
    Key("named:", "string", "TTL: half an hour and retention", "<hash of an idempotency key>: a request id"),
    Key("levels:", "zset", "members removed with the last request", "<model>: priorities of which requests wait"),
    Key(
        "level:",
        "zset",
        "members removed with the owner's last request",
        "<priority>|<model>: owner by the virtual time at which it is served next",
    ),
    Key(
        "flow:",
        "zset",
        "members removed when they start or end",
        "<priority>|<length of owner>|<owner>|<model>: queued rids, in order",
    ),
    Key("virtual_times:", "zset", "TTL: a day from the last starts", "<model>: owner by its virtual time, in tokens"),
    Key("queue:", "hash", "TTL: a day from the last starts", "<model>: virtual times, mean answer, starts of a minute"),
    Key("queued:", "hash", "members removed with the last request", "<model>: owner → number of its queued requests"),
    Key(
        "queued_bytes",
        "hash",
        "members removed with the last body that waits",
        "model → bytes of the bodies queued for it",
    ),
    Key(
        "shares:",
        "hash",
        "members removed with the last request",
        "<model>: what waits under further limits: n, t, b, and t|<owner>, b|<owner>",
    ),
    Key(
        "waiting:",
        "zset",
        "members removed when rung or expired",
        "<model>: workers in the order of bells",
    ),
    Key("taken", "hash", "members removed by the reaper", "worker → number, nonce and rids of its last take"),
    Key("inflight:", "hash", "deleted by the reaper after its lease", "<frontend>: rid → labels"),
    Key("counts:", "hash", "deleted by the reaper after its lease", "<frontend>: labels → queued + 2^26 * running"),
    Key("group_counts", "hash", "permanent, bounded by labels", "the sum of `counts` of all frontends"),
    Key("reading:", "set", "deleted by the reaper after its lease", "<frontend>: rids of others that it reads"),
    Key("running:", "hash", "deleted by the reaper after its lease", "<worker>: rid → frontends that read it"),
    Key(
        "pending_cancellations:",
        "set",
        "deleted by the reaper after its lease",
        "<worker>: rids with a cancel to confirm",
    ),
    Key("fenced:", "string", "TTL: a day", "<replica>: has expired in this shard; it begins nothing more"),
    Key("created", "zset", "members removed by sweep", "rid by created_at, for listings"),
    Key("active", "zset", "members removed at the end", "rid by created_at, while not ended"),
    Key("deadlines", "zset", "members removed when due or at the end", "<kind>|<rid> by the time it is due"),
    Key("owned:", "zset", "members removed by sweep", "<owner>: rid by created_at, for listings by owner"),
    Key("expiries", "zset", "members removed by sweep", "rid, or <rid>|<owner>, by the time its record expires"),
    Key("quota_slots:", "zset", "TTL: 30 days from the last reserve", "<owner>: <rid>|<nonce> by admit_by"),
    Key("ended_slots:", "set", "TTL: a day from the last end", "<owner>: <rid>|<nonce> of ended requests with a slot"),
    Key("with_parent", "zset", "members removed at the end", "rid of one with a parent, by when that is looked at"),
    Key("children:", "zset", "TTL: retention after the end", "<rid>: ids of the requests it started, by when"),
    Key("ended_parent:", "string", "TTL: an hour after the end", "<rid>: how it ended, for requests that it started"),
    Key("webhooks", "zset", "TTL: 25 hours from the last event", "event id by the time its delivery is due"),
    Key("webhook:", "hash", "TTL: 25 hours; deleted once delivered", "<event id>: an event that is to be delivered"),
    Key("totals", "hash", "permanent, bounded by labels", "counters of ended and of reaped requests"),
    Key("ticks", "hash", "members removed by the reaper", "replica → how often it has reconciled the shard, 0 before"),
    Key("confirmed", "string", "TTL: a minute", "written before replicas of Redis are waited for"),
    Key("epoch", "string", "permanent", "changes when the shard has lost its data"),
    Key("frontends", "zset", "members removed when they expire", "frontend by the end of its lease in this shard"),
    Key("workers", "zset", "members removed when they expire", "worker by the end of its lease in this shard"),
    Key(
        "served",
        "hash",
        "members removed when they expire",
        "worker → JSON object: its models, and if it drains",
    ),
    Key("models", "zset", "permanent, at most 1000 members", "known model by when it was last served in this shard"),
    Key("pending_cleanup", "hash", "members removed when they are reaped", "expired replica → role, drained"),
    Key("clock", "hash", "permanent", "last time seen, grace after an outage, next sweep, steps of Redis's clock"),
)

CONTROL_KEYS = (
    Key("frontends", "zset", "members removed when they expire", "listed frontend by when its entry expires"),
    Key("workers", "zset", "members removed when they expire", "listed worker by when its entry expires"),
    Key("roster", "hash", "permanent", "epoch and version of the list of replicas"),
    Key("changes", "zset", "members removed a day after they left", "replica by the time of its last change"),
    Key("versions", "zset", "permanent, its last 10,000 members", "versions that the list of replicas has had"),
    Key(
        "replica:",
        "hash",
        "TTL: a day and a lease from the last heartbeat",
        "<replica>: its description of itself, and an instruction to it",
    ),
    Key("models", "zset", "permanent, at most 1000 members", "known model by when it was last served"),
    Key("config", "hash", "permanent", "the settings that must be common, when first written, and its revision"),
    Key("left_replicas", "zset", "members removed after a day", "replica that left with nothing left, by when it did"),
    Key("expired_replicas", "zset", "members removed after a day", "replica that ended before, by when it did"),
    Key("secret", "string", "permanent", "signs log-ins, and makes ids from idempotency keys"),
    Key("clock", "hash", "permanent", "last time seen, and the grace after an outage"),
)

CHANNELS = (
    Channel("request:<rid>", "all", "status of the client's connection, cancel, end: objects with `type`"),
    Channel(
        "worker:<worker>",
        "all",
        "cancels, bells and instructions: objects with `type`, and `rid`, `mode`, `reason` or `prefix`",
    ),
    Channel("frontend:<frontend>", "all", "`instruction`: there is one for it, which its heartbeat reads"),
    Channel(
        "inbox:<frontend>", "shard", "frames `[[rid, entry id, tokens or event], …]`; long tokens as a message behind"
    ),
)


def crc16(data: bytes) -> int:
    """Return the CRC-16/XMODEM of the data, which Redis Cluster derives slots from."""
    return binascii.crc_hqx(data, 0)


@cache
def shard_tags(shards: int) -> tuple[str, ...]:
    """Return one hash tag for each shard. Their slots are spread evenly over the nodes of a Redis Cluster."""
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
    """The names of the Redis keys and channels of one namespace."""

    namespace: str
    shards: int
    prefixes: tuple[str, ...] = field(init=False)  # of each shard's keys

    def __post_init__(self) -> None:
        prefixes = tuple(f"{self.namespace}:{{{tag}}}:" for tag in shard_tags(self.shards))
        object.__setattr__(self, "prefixes", prefixes)

    @property
    def control(self) -> str:
        """Return the prefix of the control keys."""
        return f"{self.namespace}:{{{CONTROL_TAG}}}:"

    def shard_of(self, rid: str) -> int:
        """Return the shard of a request, by the hash of its id."""
        return crc16(rid.encode()) % self.shards if self.shards > 1 else 0

    def prefix_of(self, rid: str) -> str:
        """Return the prefix of the shard of a request."""
        return self.prefixes[self.shard_of(rid)]

    def channel(self, rid: str) -> str:
        """Return the channel of a request's `connection`, `cancel` and `terminal` messages."""
        return f"{self.namespace}:request:{rid}"

    def worker_channel(self, worker: str) -> str:
        """Return the channel of a worker's instructions, the cancels for its requests, and the bells that wake it."""
        return f"{self.namespace}:worker:{worker}"

    def frontend_channel(self, frontend: str) -> str:
        """Return the channel of a frontend's instructions."""
        return f"{self.namespace}:frontend:{frontend}"

    def inbox(self, shard: int, frontend: str) -> str:
        """Return the sharded channel on which a shard sends tokens and events to a frontend."""
        return f"{self.prefixes[shard]}inbox:{frontend}"
