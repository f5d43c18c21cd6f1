"""Each script's header, the names it binds, the wrapper that calls it and the declared keys say the same."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from lifecycle.settings import load
from lifecycle.store import script_loader
from lifecycle.store.keys import CHANNELS, CONTROL_KEYS, SHARD_KEYS, SLOTS, crc16, shard_tags
from lifecycle.store.listings import Filter
from lifecycle.store.merged_calls import MERGED
from lifecycle.store.permissions import check_permissions
from lifecycle.store.quota_slots import QuotaSlot, QuotaSlots
from lifecycle.store.results import START_LOST, Append, ExpiredReplica, Outcome, QueuedPage, StartedAttempt
from lifecycle.store.shard_queues import read_shard_queue
from lifecycle.store.transitions import Store
from lifecycle.store.webhooks import WebhookEvent
from lifecycle.tokens.history import read_history
from lifecycle.types import CancelMode, Labels, ReplicaAction, Role, Status
from tests.admitting import new_request
from tests.leaks import RULES

FOLDER = Path(script_loader.__file__).parent / "lua"
FILES = sorted(FOLDER.rglob("*.lua"))
CONTROL_FILES = {"configure", "fate", "heartbeat", "leave", "listed_leases", "roster", "secret", "listed", "instruct"}
SHARED_FILES = {"membership", "served"}  # for either prefix

# Names that a script puts together: `P .. role .. 's'`, `P .. index`.
# And what one plain command writes: lifecycle/tracking/idempotency.py.
COMPOSED = {"named:", "frontends", "workers", "created", "active"}


class Header(NamedTuple):
    purpose: str
    keys: str
    argv: list[str]
    repeated: list[str]  # what follows "then for each …:"
    further: list[str]  # what follows a second one
    returns: str


def header_of(source: str) -> Header:
    match = re.match(
        r"#!lua[^\n]*\n-- (?P<purpose>.+?)\n-- KEYS\[1\] (?P<keys>.+?)\n"
        r"-- ARGV    (?P<argv>.+?)\n-- Returns (?P<returns>.+?)\n\n",
        source,
        re.DOTALL,
    )
    assert match, "no header with purpose, KEYS, ARGV and Returns"
    argv = re.sub(r"\s*\n--\s+", " ", match["argv"])
    once, *more = argv.split(", then for each ")
    repeated, further = [_names(part.partition(":")[2]) for part in (*more, "", "")[:2]]
    return Header(match["purpose"], match["keys"], _names(once), repeated, further, match["returns"])


def _names(text: str) -> list[str]:
    """Names up to each comma, without what is said about them: `rids ('' or a JSON list)` is `rids`."""
    plain = re.sub(r"\([^()]*\)", "", text)
    return [re.sub(r"'.*", "", part).strip() for part in plain.split(",") if part.strip()]


def source_of(name: str) -> str:
    return (FOLDER / f"{name}.lua").read_text()


@pytest.mark.parametrize("name", script_loader.names())
def test_no_comment_is_left_that_the_loader_replaces(name: str) -> None:
    assert "\n--- @" not in script_loader.load(name).source


@pytest.mark.parametrize("name", script_loader.names())
def test_no_call_of_a_script_creates_a_function_that_it_does_not_use(name: str) -> None:
    code = re.sub(r"--.*", "", script_loader.load(name).source)
    words = Counter(re.findall(r"\w+", code))
    assert [
        function for function in re.findall(r"^local function (\w+)", code, re.MULTILINE) if words[function] < 2
    ] == []


def test_a_script_may_name_the_commands_that_it_checks() -> None:
    named = re.search(r"^--- @permit (.+)$", source_of("finish"), re.MULTILINE)
    assert named
    checks = " and ".join(f"is_permitted('{command}', P)" for command in named[1].split())
    assert f"\nif not ({checks}) then " in script_loader.load("finish").source


@pytest.mark.parametrize("name", script_loader.names())
def test_a_script_says_what_it_does_and_takes(name: str) -> None:
    source = source_of(name)
    header = header_of(source)
    assert header.purpose.startswith(f"{name}: ")
    assert header.keys.startswith("control prefix" if name in CONTROL_FILES else "shard prefix")
    if name in MERGED:
        bound = re.search(r"^local ([\w, ]+) = ARGV\[1\]$", source, re.MULTILINE)
        each = re.search(r"local ([\w,\s]+?) = unpack\(ARGV, first, first \+ ARGUMENTS - 1\)", source)
        assert each
        assert re.split(r",\s+", each[1]) == header.repeated
        assert f"local ARGUMENTS = {len(header.repeated)} " in source
    elif header.repeated and header.repeated != ["name", "value"]:
        bound = re.search(r"^local ([\w, ]+) = ARGV\[1\], ARGV\[2\]$", source, re.MULTILINE)
        loop = re.search(r"local ([\w, ]+) = ARGV\[i\]", source)
        assert loop
        assert loop[1].split(", ") == header.repeated
    else:
        bound = re.search(r"^local ([\w,\s]+?) = unpack\(ARGV(?:, 1, \d+)?\)$", source, re.MULTILINE)
    assert bound, "the arguments are not bound to names"
    names = re.split(r",\s+", bound[1])
    assert [given for name, given in zip(names, header.argv, strict=True) if name not in ("_", given)] == []


@pytest.mark.parametrize("name", script_loader.names())
def test_only_admission_is_refused_when_memory_is_full(name: str) -> None:
    flags = source_of(name).partition("\n")[0]
    assert ("allow-oom" in flags) == (name not in ("admit", "track"))


class Recorded(Exception):
    pass


class Recorder:
    """Replaces Commands and records the commands that would be sent."""

    def __init__(self) -> None:
        self.sent: tuple[Any, ...] = ()

    async def execute(self, *args: Any) -> Any:
        self.sent = args
        raise Recorded


LABELS = Labels("m", "completions", "stream")
EXPIRED = ExpiredReplica("w", "worker")
PIECE = Append("r", 1, 1, b'["t"]', True)
EVENT = WebhookEvent("e", "u", "r", "completions", "m", Status.COMPLETED, "", "", 1.0, 2.0, 0)
CALLS: dict[str, Callable[[Store], Awaitable[Any]]] = {
    "admit": lambda s: s.admit(new_request("r", "n", LABELS, "f", b"{}", "continue", grace_secs=1.0), retry_for_secs=0),
    "note_child": lambda s: s.note_child("p", "r", "", retry_for_secs=0),
    "append": lambda s: s.append(0, "w", [PIECE, PIECE]),
    "attach": lambda s: s.attach("r", "f", 1),
    "instruct": lambda s: s.instruct("w", ReplicaAction.PAUSE, "operator:cli"),
    "fate": lambda s: s.fate_of("w"),
    "heartbeat": lambda s: s.heartbeat("w", Role.WORKER, {}, ["m"]),
    "browse": lambda s: s.browse(0, "active", "oldest", 0, 100, 10, "", []),
    "expire": lambda s: s.expire(0),
    "count_inflight": lambda s: s.count_inflight(0),
    "leave": lambda s: s.leave("w", Role.WORKER),
    "members": lambda s: s.count_held(0, Role.WORKER),
    "cancel": lambda s: s.cancel("r", CancelMode.KILL, "why"),
    "confirm": lambda s: s.run("confirm", s.keys.prefixes[0]),
    "configure": lambda s: s.configure("max_attempts", 1),
    "delete_content": lambda s: s.delete_content("r"),
    "disconnect": lambda s: s.disconnect("r", "f", 0, "closed_unexpectedly", admitting=True),
    "forbidden": lambda s: check_permissions(s, Role.WORKER, 0.0),
    "fail": lambda s: s.fail("r", "internal", "why"),
    "finish": lambda s: s.finish("r", "w", 1, Outcome("completed"), 1, remainder=PIECE),
    "history": lambda s: read_history(s, "r", "0-0"),
    "list": lambda s: s.list_page(0, Filter(), active=True, upper="+inf", before="", limit=1),
    "find_released": lambda s: QuotaSlots(s).find_released(0, [QuotaSlot("r", "n", 1.0)]),
    "lost_start": lambda s: s.report_lost_start("r", StartedAttempt(1, "n"), START_LOST),
    "read": lambda s: s.read("r"),
    "timeline": lambda s: s.read_timeline("r"),
    "reap": lambda s: s.reap(0, EXPIRED),
    "reconcile_shard": lambda s: s.reconcile_shard(0, "w", Role.WORKER),
    "requeue": lambda s: s.requeue("r", "w", 1),
    "reserve": lambda s: QuotaSlots(s).reserve("o", "r", "n", 1),
    "roster": lambda s: s.listed(),
    "listed_leases": lambda s: s.listed_leases(Role.WORKER),
    "secret": lambda s: s.read_secret(),
    "take": lambda s: s.take(0, "w", 1, "nonce", ["m"], 1),
    "waits": lambda s: read_shard_queue(s, 0, "m"),
    "queued": lambda s: s.queued_page(0, QueuedPage.first(), 10),
    "sweep": lambda s: s.sweep(0),
    "track": lambda s: s.track(new_request("r", "n", LABELS, "f", b"", "continue", grace_secs=1.0), retry_for_secs=0),
    "claim_children": lambda s: s.claim_children(0, 1.0),
    "parents": lambda s: s.parent_states(0, [("p", "1.0")]),
    "claim_webhooks": lambda s: s.claim_webhooks(0, "t", limit=1, claim_secs=1.0, under_way={}, origin_limit=1),
    "settle_webhook": lambda s: s.settle_webhook(0, EVENT, "t", "failed"),
}


@pytest.mark.parametrize("name", script_loader.names())
async def test_the_wrapper_passes_as_many_arguments_as_the_header_names(name: str) -> None:
    recorder = Recorder()
    store = Store(recorder, load({}))  # type: ignore[arg-type]
    with pytest.raises(Recorded):
        await CALLS[name](store)
    command, sha, keys, prefix, *argv = recorder.sent
    assert (command, sha, keys) == ("EVALSHA", script_loader.load(name).sha, 1)
    assert prefix == (store.keys.control if name in CONTROL_FILES else store.keys.prefixes[0])
    header = header_of(source_of(name))
    given = 1 if name in MERGED else 2  # of the items of append, or of the record's further fields
    assert len(argv) == len(header.argv) + given * len(header.repeated) + 2 * len(header.further)


def literals(files: list[Path]) -> set[str]:
    return {name for file in files for name in re.findall(r"P \.\. '([a-z_]+:?)'", file.read_text())}


def test_the_scripts_use_the_declared_keys_and_channels_and_no_others() -> None:
    control = literals([f for f in FILES if f.stem in CONTROL_FILES | SHARED_FILES])
    shard = literals([f for f in FILES if f.stem not in CONTROL_FILES])
    declared_control = {key.name for key in CONTROL_KEYS}
    declared_shard = {key.name for key in SHARD_KEYS}
    declared_shard |= {channel.name.partition("<")[0] for channel in CHANNELS if channel.scope == "shard"}
    assert control <= declared_control
    assert shard <= declared_shard
    assert declared_control - control - COMPOSED == set()
    assert declared_shard - shard - COMPOSED == set()


def test_every_declared_key_has_a_rule_about_what_may_be_left_of_it() -> None:
    assert set(RULES) == {key.name for key in SHARD_KEYS + CONTROL_KEYS}


def test_every_include_is_used_and_exists() -> None:
    included = {
        part for f in FILES for line in re.findall(r"--- @include (.+)", f.read_text()) for part in line.split()
    }
    assert included == {f.stem for f in (FOLDER / "include").glob("*.lua")}


@pytest.mark.parametrize(("data", "crc"), [(b"", 0), (b"123456789", 0x31C3), (b"foo", 44950)])
def test_crc16_is_the_one_of_redis_cluster(data: bytes, crc: int) -> None:
    assert crc16(data) == crc


@pytest.mark.parametrize("shards", [1, 2, 3, 7, 64, 1024])
def test_shard_tags_spread_evenly_over_the_slots(shards: int) -> None:
    tags = shard_tags(shards)
    assert len(set(tags)) == shards
    if shards > 1:
        slots = [crc16(tag.encode()) % SLOTS for tag in tags]
        width = SLOTS / shards
        assert all(k * width - 1 < slot < (k + 1) * width for k, slot in enumerate(slots)), "one in each equal part"


def test_requests_spread_evenly_over_the_shards() -> None:
    store = Store(Recorder(), load({"shards": 4}))  # type: ignore[arg-type]
    counts = [0] * 4
    for number in range(4000):
        counts[store.keys.shard_of(f"chatcmpl-{number}")] += 1
    assert min(counts) > 850
