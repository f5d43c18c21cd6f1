"""Everything the invariants speak of, read in one moment of Redis, straight from its keys."""

from __future__ import annotations

import json
from collections.abc import Collection
from dataclasses import dataclass
from typing import Any, NamedTuple

from lifecycle.store.results import queued_and_running
from lifecycle.store.transitions import Store

TERMINAL = ("completed", "failed", "cancelled")
_FIELDS = (
    "status",
    "error_type",
    "frontend",
    "worker",
    "attempt",
    "model",
    "endpoint",
    "request_type",
    "finished_at",
    "output_tokens",
    "queue",
    "entry",
)

_READ = """
local P = KEYS[1]
local function pairs_of(key)
  local flat, found = redis.call('HGETALL', key), {}
  for i = 1, #flat, 2 do found[#found + 1] = {flat[i], flat[i + 1]} end
  return found
end
local records, running, counts, members = {}, {}, {}, {}
local fields, replicas = cjson.decode(ARGV[1]), {}
for _, replica in ipairs(cjson.decode(ARGV[2])) do replicas[replica] = true end
for _, rid in ipairs(redis.call('ZRANGE', P .. 'created', 0, -1)) do
  local values = redis.call('HMGET', P .. 'request:' .. rid, unpack(fields))
  -- One in its last second counts as expired: the keys of a slot that has moved expire milliseconds apart.
  local left_ms = redis.call('PTTL', P .. 'request:' .. rid)
  if values[1] and (left_ms < 0 or left_ms > 1000) then
    for i = 1, #values do values[i] = values[i] or '' end
    local last = redis.call('XREVRANGE', P .. 'tokens:' .. rid, '+', '-', 'COUNT', 1)[1]
    values[#values + 1] = last and last[1] or ''
    values[#values + 1] = tostring(redis.call('XLEN', P .. 'tokens:' .. rid))
    local waits = ''
    if values[1] == 'queued' then
      waits = tostring(#redis.call('XRANGE', P .. values[11] .. ':' .. values[6], values[12], values[12]))
    end
    values[#values + 1] = waits
    records[#records + 1] = {rid, values}
    replicas[values[3]], replicas[values[4]] = true, true
  end
end
for replica in pairs(replicas) do
  if replica ~= '' then
    counts[#counts + 1] = {replica, pairs_of(P .. 'counts:' .. replica)}
    members[#members + 1] = {replica, redis.call('HKEYS', P .. 'inflight:' .. replica)}
    running[#running + 1] = {replica, redis.call('HKEYS', P .. 'running:' .. replica)}
  end
end
return cjson.encode({records = records, counts = counts, members = members, running = running,
  totals = pairs_of(P .. 'totals'), epoch = redis.call('GET', P .. 'epoch') or '',
  active = redis.call('ZRANGE', P .. 'active', 0, -1)})
"""


class Record(NamedTuple):
    """The fields of a record that must not change after its end, and its places in Redis until then."""

    status: str
    error_type: str
    frontend: str
    worker: str
    attempt: str
    model: str
    endpoint: str
    request_type: str
    finished_at: str
    output_tokens: str
    queue: str
    entry: str
    last_entry: str  # id of the token stream's last entry
    entries: str
    waits: str  # '1' when its entry is in its queue

    @property
    def ended(self) -> bool:
        return self.status in TERMINAL

    @property
    def labels(self) -> tuple[str, str, str]:
        return self.model, self.endpoint, self.request_type


@dataclass(frozen=True)
class Shard:
    """One shard at one moment."""

    records: dict[str, Record]
    counts: dict[str, dict[tuple[str, ...], int]]  # frontend → (status, *labels) → number
    members: dict[str, set[str]]  # frontend → rids it is counted for
    running: dict[str, set[str]]  # worker → rids
    totals: dict[tuple[str, ...], int]
    active: set[str]
    epoch: str


async def read_shard(store: Store, shard: int, replicas: Collection[str] = ()) -> Shard:
    """Read a snapshot, with the counts of these replicas even if no record names them. Raises StoreUnavailable."""
    prefix = store.keys.prefixes[shard]
    raw = await store.commands.execute("EVAL", _READ, 1, prefix, json.dumps(_FIELDS), json.dumps(list(replicas)))
    data: dict[str, Any] = json.loads(raw)
    return Shard(
        records={rid: Record(*values) for rid, values in data["records"]},
        counts={replica: _by_status(fields) for replica, fields in data["counts"]},
        members={replica: set(rids) for replica, rids in data["members"]},
        running={replica: set(rids) for replica, rids in data["running"]},
        totals={tuple(json.loads(field)): int(n) for field, n in data["totals"]},
        active=set(data["active"]),
        epoch=data["epoch"],
    )


def _by_status(fields: list[list[str]]) -> dict[tuple[str, ...], int]:
    counts: dict[tuple[str, ...], int] = {}
    for labels, number in fields:
        for status, count in zip(("queued", "running"), queued_and_running(int(number)), strict=True):
            if count:
                counts[status, *json.loads(labels)] = count
    return counts
