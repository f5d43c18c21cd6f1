"""Cause the faults of a plan."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Mapping

from lifecycle.store import script_loader
from tests.chaos.audit.history import History, Window
from tests.simulation.loop import VirtualLoop
from tests.simulation.network import Network
from tests.simulation.plan import LOSES_DATA, OF_A_PROCESS, Fault, Plan
from tests.simulation.replicas import Slot
from tests.simulation.story import Story

_LATE_SECS = 5.0  # longer than a lease
_REFUSALS = (
    "MISCONF Redis is configured to save RDB snapshots, but it's currently unable to persist to disk",
    "LOADING Redis is loading the dataset in memory",
    "READONLY You can't write against a read only replica.",
    "OOM command not allowed when used memory > 'maxmemory'.",
    "NOREPLICAS Not enough good replicas to write.",
)
_AWAITED_SECS = 4.0  # how long a failover waits for the script that it loses
_AFTER_SECS = 4.0  # how long after a fault has been mended its clients may still notice


class Faults:
    """Causes faults. `clock_step_secs` is what is to be added to the server's clock."""

    def __init__(
        self,
        plan: Plan,
        loop: VirtualLoop,
        network: Network,
        slots: Mapping[str, Slot],
        history: History,
        story: Story,
    ) -> None:
        self.clock_step_secs = 0.0
        self._plan = plan
        self._loop = loop
        self._network = network
        self._slots = slots
        self._history = history
        self._story = story
        self._dice = random.Random(f"faults {plan.seed}")
        self._replacing = asyncio.Lock()
        self._replicated: bytes | None = None  # what a replica had before a script that was waited for
        self._began_at = loop.time()

    async def run(self) -> None:
        """Cause every fault at its time, and mend it."""
        async with asyncio.TaskGroup() as group:
            for fault in self._plan.faults:
                group.create_task(self._cause(fault), name=f"fault {fault}")

    async def _cause(self, fault: Fault) -> None:
        await asyncio.sleep(fault.at)
        begun_at = self._loop.time() - self._began_at
        self._story.note("fault", str(fault))
        # A fault that has begun may break calls until it is mended; the end of the window is corrected afterwards.
        index = len(self._history.windows)
        replicas = (fault.target,) if fault.kind in OF_A_PROCESS else None
        self._history.windows.append(Window(begun_at, float("inf"), fault.kind, fault.kind in LOSES_DATA, replicas))
        await self._strike(fault)
        ended_at = self._loop.time() - self._began_at
        self._history.windows[index] = Window(
            begun_at, ended_at + _AFTER_SECS, fault.kind, fault.kind in LOSES_DATA, replicas
        )

    async def _strike(self, fault: Fault) -> None:
        match fault.kind:
            case "crash" | "pause" | "drain" | "wall clock":
                await self._of_process(fault, self._slots[fault.target])
            case (
                "cut" | "no replies" | "unheard" | "slow link" | "reset" | "lost reply" | "no reply" | "vanish" | "late"
            ):
                await self._of_link(fault)
            case "failover" | "restart" | "flush" | "split":
                async with self._replacing:
                    await self._replace(fault)
            case _:
                await self._of_server(fault)

    async def _of_process(self, fault: Fault, slot: Slot) -> None:
        process = slot.process
        if process is None or not slot.runs:
            return
        match fault.kind:
            case "crash":
                process.crash_after = fault.amount
                await asyncio.sleep(2.0)
            case "pause":
                process.pause()
                await asyncio.sleep(fault.secs)
                self._story.note(fault.target, "goes on")
                process.resume()
            case "drain":
                slot.drain()
                await asyncio.sleep(fault.secs + 12.0)
            case "wall clock":
                process.clock_offset_secs = self._dice.choice((-3600.0, -5.0, 5.0, 3600.0))

    async def _of_link(self, fault: Fault) -> None:
        route = self._network.route(fault.target)
        match fault.kind:
            case "cut" | "no replies" | "unheard":
                route.set_open(to_server=fault.kind == "no replies", to_client=fault.kind == "unheard")
                await asyncio.sleep(fault.secs)
                self._story.note("fault", f"mended: {fault}")
                route.set_open(to_server=True, to_client=True)
            case "slow link":
                route.delay_factor = 30.0
                await asyncio.sleep(fault.secs)
                route.delay_factor = 1.0
            case "reset":
                for connection in list(route.connections):
                    connection.reset()
            case "lost reply" | "no reply":
                route.lost_script = script_loader.load(fault.script).sha.encode()
                route.lost_silently = fault.kind == "no reply"
                await asyncio.sleep(6.0)
                route.lost_script = b""
            case "late":
                route.late_script, route.late_secs = script_loader.load(fault.script).sha.encode(), _LATE_SECS
                await asyncio.sleep(6.0 + _LATE_SECS)
                route.late_script = b""
            case "vanish":
                for connection in list(route.connections):
                    connection.vanish()
                await asyncio.sleep(6.0)

    async def _of_server(self, fault: Fault) -> None:
        network, server = self._network, self._network.server
        match fault.kind:
            case "hang":
                network.hang()
                await asyncio.sleep(fault.secs)
                self._story.note("fault", "the server goes on")
                network.wake()
            case "refusal":
                server.refusal = self._dice.choice(_REFUSALS)
                self._story.note("redis", f"refuses: {server.refusal.split()[0]}")
                await asyncio.sleep(fault.secs)
                self._story.note("redis", "refuses no more")
                server.refusal = ""
            case "server clock":
                self.clock_step_secs += self._dice.choice((-30.0, -2.0, 2.0, 30.0))
                self._story.note("redis", f"its clock is off by {self.clock_step_secs:g} s")

    async def _replace(self, fault: Fault) -> None:
        server = self._network.server
        match fault.kind:
            case "failover":
                dumped, lost = await self._lagging_replica(fault)
                await self._replace_server(dumped, 0.3, f"fails over and loses {lost} writes")
            case "split":
                dumped, lost = await self._lagging_replica(fault)
                await self._split(dumped, fault, f"fails over, lacks {lost} writes, and the old server goes on")
            case "restart":
                await self._replace_server(server.database.dump(), min(fault.secs, 3.0), "is started anew")
            case "flush":
                await self._replace_server(None, min(fault.secs, 3.0), "is started anew without its data")

    async def _lagging_replica(self, fault: Fault) -> tuple[bytes, int]:
        """Return what a replica has that lacks the last writes, and how many it lacks."""
        server = self._network.server
        await self._wait_for(fault)
        dumped, writes = self._replicated or server.database.dump(), server.database.writes
        self._replicated = None
        self._story.note("redis", "its replica stops following")
        give_up_at = self._loop.time() + min(fault.secs, 3.0)
        while server.database.writes < writes + fault.amount and self._loop.time() < give_up_at:
            await asyncio.sleep(0.001)
        return dumped, server.database.writes - writes

    async def _split(self, dumped: bytes, fault: Fault, what: str) -> None:
        """Let the present connections be those of the old server, for a while."""
        network, old = self._network, self._network.connections()
        hangs = self._dice.random() < 0.5
        self._story.note("redis", f"{what}{' after a hang' if hangs else ''}")
        network.server.demote()
        network.server.restart(dumped)
        if hangs:
            for connection in old:
                connection.stall(True)
            await asyncio.sleep(fault.secs)
            for connection in old:
                connection.stall(False)
        await asyncio.sleep(self._dice.uniform(0.05, 2.0))
        self._story.note("redis", "the old server closes its connections")
        for connection in old:
            connection.reset()

    async def _wait_for(self, fault: Fault) -> None:
        """Keep what a replica has before the next run of the fault's script. That may never come."""
        if not fault.script:
            return
        server, sha = self._network.server, script_loader.load(fault.script).sha

        def keep() -> None:
            self._replicated = server.database.dump()

        server.awaited[sha] = keep
        give_up_at = self._loop.time() + _AWAITED_SECS
        while self._replicated is None and self._loop.time() < give_up_at:
            await asyncio.sleep(0.001)
        server.awaited.pop(sha, None)

    async def _replace_server(self, dumped: bytes | None, down_secs: float, what: str) -> None:
        network = self._network
        network.accepts = False
        network.reset_all()
        self._story.note("redis", what)
        await asyncio.sleep(down_secs)
        network.server.restart(dumped)
        network.accepts = True
        self._story.note("redis", "is back")
