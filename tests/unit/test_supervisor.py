"""Children under one roof: their lines, their readiness, their end."""

from __future__ import annotations

import asyncio
import io
import os
import signal
import subprocess
import sys
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path

import pytest

from lifecycle.local.child_process import describe_status
from lifecycle.local.console import Console
from lifecycle.local.supervisor import Interrupted, NotReady, Supervisor
from tests.processes import gone
from tests.waiting import block_until

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]
BOUND_SECS = 10.0

PATIENT = "import signal, time; print('up', flush=True); signal.pause()"
STUBBORN = (
    "import signal; signal.signal(signal.SIGTERM, lambda *_: print('no', flush=True)); print('up', flush=True)\n"
    "while True: signal.pause()"
)
POLITE = (
    "import signal, sys\n"
    "def bye(*_): print('bye', flush=True); sys.exit(0)\n"
    "signal.signal(signal.SIGTERM, bye); print('up', flush=True); signal.pause()"
)


def python(program: str) -> list[str]:
    return [sys.executable, "-c", program]


class Screen:
    """The output of a supervisor, and conditions on it."""

    def __init__(self, *, terminal: bool = False) -> None:
        self.out = io.StringIO()
        self.console = Console(self.out, terminal=terminal)

    @property
    def text(self) -> str:
        return self.out.getvalue()

    def shows(self, text: str) -> Callable[[], Awaitable[bool]]:
        async def shown() -> bool:
            return text in self.text

        return shown


@pytest.fixture
def screen() -> Screen:
    return Screen()


async def test_lines_of_both_outputs_carry_the_padded_name(screen: Screen) -> None:
    async with Supervisor(screen.console) as supervisor:
        child = await supervisor.start("worker-10", python("import sys; print('out'); print('err', file=sys.stderr)"))
        await child.ended
        other = await supervisor.start("web", python("print('last', end='')"))
        await other.ended
    assert "worker-10 | out\n" in screen.text
    assert "worker-10 | err\n" in screen.text
    assert "web       | last\n" in screen.text
    assert "\x1b" not in screen.text


async def test_on_a_terminal_names_are_coloured_and_progress_is_erased(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NO_COLOR", raising=False)
    screen = Screen(terminal=True)
    async with Supervisor(screen.console) as supervisor:
        await supervisor.start("a", python(PATIENT))
        await supervisor.wait_ready({"a": screen.shows("up")})
    assert "\x1b[36ma |\x1b[0m up\n" in screen.text
    assert "waiting for a (0 of 1 ready)" in screen.text
    assert screen.text.rpartition("\x1b[2K")[2] == ""


async def test_a_child_gets_the_environment_it_is_given(screen: Screen) -> None:
    async with Supervisor(screen.console) as supervisor:
        child = await supervisor.start("a", python("import os; print(os.environ['GIVEN'])"), {"GIVEN": "this"})
        assert await child.ended == 0
    assert list(child.tail) == ["this"]


async def test_an_endless_line_comes_in_pieces(screen: Screen) -> None:
    async with Supervisor(screen.console) as supervisor:
        child = await supervisor.start("a", python("print('x' * 300_000)"))
        assert await child.ended == 0
    assert screen.text.count("x") == 300_000
    assert all(len(line) < 150_000 for line in child.tail)


async def test_ready_is_when_every_condition_holds(screen: Screen) -> None:
    answers: Iterator[OSError | bool] = iter([OSError("refused"), False, True])

    async def third_time_lucky() -> bool:
        answer = next(answers)
        if isinstance(answer, OSError):
            raise answer
        return answer

    async with Supervisor(screen.console) as supervisor:
        await supervisor.start("a", python(PATIENT))
        await supervisor.wait_ready({"a": screen.shows("up"), "url": third_time_lucky})
    assert "waiting for a, url (0 of 2 ready)\n" in screen.text


async def test_what_is_never_ready_is_named_with_its_reason(screen: Screen) -> None:
    async def refused() -> bool:
        raise ConnectionRefusedError("nobody there")

    async def hangs() -> bool:
        await asyncio.Event().wait()
        return True

    async with Supervisor(screen.console) as supervisor:
        with pytest.raises(NotReady, match=r"not ready after 0\.3 s: web \(.*nobody there"):
            await supervisor.wait_ready({"web": refused}, timeout_secs=0.3)
        with pytest.raises(NotReady, match=r"worker"):
            await supervisor.wait_ready({"worker": hangs}, timeout_secs=0.1)


async def test_a_child_that_dies_is_not_waited_for(screen: Screen) -> None:
    async with Supervisor(screen.console) as supervisor:
        await supervisor.start("a", python("import sys; sys.exit('no such model')"))
        with pytest.raises(NotReady, match="a ended with status 1"):
            await supervisor.wait_ready({"a": screen.shows("what nobody prints")})


async def test_what_cannot_be_run_says_so(screen: Screen) -> None:
    async with Supervisor(screen.console) as supervisor:
        child = await supervisor.start("a", ["/no/such/program"])
        assert await child.ended == 1
    assert "a | cannot run /no/such/program: No such file or directory\n" in screen.text


async def test_an_unexpected_death_is_reported_and_the_others_run_on(screen: Screen) -> None:
    async with Supervisor(screen.console) as supervisor:
        victim = await supervisor.start("victim", python("print('last words', flush=True)\n" + PATIENT))
        other = await supervisor.start("other", python(POLITE))
        await supervisor.wait_ready({"victim": screen.shows("victim | up"), "other": screen.shows("other  | up")})
        os.kill(victim.pid, signal.SIGKILL)
        await supervisor.wait_ready({"report": screen.shows("died unexpectedly: SIGKILL")})
        assert f"victim (pid {victim.pid})" in screen.text
        assert screen.text.partition("Its last lines:\n")[2].startswith("victim | last words\nvictim | up\n")
        assert other.running
    assert await other.ended == 0
    assert "other  | bye" in screen.text
    assert "other (pid" not in screen.text


async def test_a_child_that_leaves_has_not_died(screen: Screen) -> None:
    async with Supervisor(screen.console) as supervisor:
        child = await supervisor.start("a", python(""))
        await supervisor.wait_ready({"report": screen.shows(f"a (pid {child.pid}) has left. The others go on.")})
    assert "unexpectedly" not in screen.text


async def test_run_ends_with_1_when_no_child_is_left(screen: Screen) -> None:
    async with Supervisor(screen.console) as supervisor:
        await supervisor.start("a", python("raise SystemExit(3)"))
        assert await supervisor.run() == 1
    assert "died unexpectedly: status 3" in screen.text


@pytest.mark.parametrize(("signum", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 0), (signal.SIGHUP, 0)])
async def test_a_signal_is_passed_on_as_sigterm(screen: Screen, signum: signal.Signals, code: int) -> None:
    async with Supervisor(screen.console) as supervisor:
        children = [await supervisor.start(name, python(POLITE)) for name in ("a", "b")]
        await supervisor.wait_ready({"a": screen.shows("a | up"), "b": screen.shows("b | up")})
        os.kill(os.getpid(), signum)
        assert await supervisor.run() == code
        assert all(gone(child.pid) for child in children)
        with pytest.raises(Interrupted):
            await supervisor.start("late", python(PATIENT))
    assert "a | bye" in screen.text
    assert "b | bye" in screen.text
    assert "unexpectedly" not in screen.text


async def test_a_signal_interrupts_waiting(screen: Screen) -> None:
    async with Supervisor(screen.console) as supervisor:
        child = await supervisor.start("a", python(PATIENT))
        asyncio.get_running_loop().call_soon(os.kill, os.getpid(), signal.SIGINT)
        with pytest.raises(Interrupted):
            await supervisor.wait_ready({"web": screen.shows("what nobody prints")})
        assert supervisor.exit_code == 130
    assert gone(child.pid)


async def test_the_drain_has_a_bound(screen: Screen) -> None:
    async with Supervisor(screen.console, drain_secs=0.2) as supervisor:
        child = await supervisor.start("a", python(STUBBORN))
        await supervisor.wait_ready({"a": screen.shows("up")})
    assert await child.ended == -signal.SIGKILL
    assert "killing a (pid" in screen.text


async def test_a_second_ctrl_c_kills(screen: Screen) -> None:
    async with Supervisor(screen.console, drain_secs=3600) as supervisor:
        child = await supervisor.start("a", python(STUBBORN))
        await supervisor.wait_ready({"a": screen.shows("up")})
        os.kill(os.getpid(), signal.SIGINT)
        running = asyncio.create_task(supervisor.run())
        while "a | no" not in screen.text:
            await asyncio.sleep(0.01)
        assert child.running
        os.kill(os.getpid(), signal.SIGINT)
        assert await asyncio.wait_for(running, BOUND_SECS) == 130
    assert gone(child.pid)


async def test_what_a_child_started_ends_with_it(screen: Screen) -> None:
    program = (
        "import subprocess, sys\n"
        f"grandchild = subprocess.Popen([sys.executable, '-c', {STUBBORN!r}], stdout=subprocess.PIPE)\n"
        "grandchild.stdout.readline(); print('grandchild', grandchild.pid, flush=True)\n" + PATIENT
    )
    async with Supervisor(screen.console) as supervisor:
        child = await supervisor.start("a", python(program))
        await supervisor.wait_ready({"a": screen.shows("up")})
        grandchild = int(child.tail[0].split()[1])
        assert not gone(grandchild)
    block_until(lambda: gone(grandchild), "the grandchild is gone")


async def test_a_cancelled_supervisor_leaves_nobody_behind(screen: Screen) -> None:
    pids: list[int] = []

    async def supervise() -> None:
        async with Supervisor(screen.console, drain_secs=3600) as supervisor:
            pids.append((await supervisor.start("a", python(STUBBORN))).pid)
            await supervisor.wait_ready({"a": screen.shows("up")})
            await supervisor.stop()

    task = asyncio.create_task(supervise())
    while "a | no" not in screen.text:
        await asyncio.sleep(0.01)
    task.cancel()  # ends stop(); the block's own stop() is ended by the next
    await asyncio.sleep(0)
    while not task.done():
        task.cancel()
        await asyncio.sleep(0.01)
    block_until(lambda: gone(pids[0]), "the child is gone")


async def test_a_closed_output_is_given_up_and_the_children_run_on() -> None:
    class Closed(io.StringIO):
        def write(self, text: str) -> int:
            raise BrokenPipeError

    async with Supervisor(Console(Closed())) as supervisor:
        child = await supervisor.start("a", python("print('x\\n' * 100_000)"))
        assert await child.ended == 0


@pytest.mark.parametrize("loop", ["asyncio", "uvloop"])
def test_children_die_with_a_killed_supervisor_and_no_terminal_signal_reaches_them(loop: str) -> None:
    if loop == "uvloop":
        pytest.importorskip("uvloop")
    program = (
        f"import asyncio, sys, {loop}\n"
        "from lifecycle.local.supervisor import Supervisor\n"
        "async def main():\n"
        "    async with Supervisor() as supervisor:\n"
        f"        child = await supervisor.start('a', [sys.executable, '-c', {STUBBORN!r}])\n"
        "        while not child.tail: await asyncio.sleep(0.01)\n"
        "        print('pid', child.pid, flush=True)\n"
        "        await supervisor.run()\n"
        f"{loop}.run(main())\n"
    )
    with subprocess.Popen(python(program), cwd=ROOT, stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        pid = next(int(line.split()[1]) for line in parent.stdout if line.startswith("pid "))
        assert os.getsid(pid) == pid
        assert not gone(pid)
        parent.kill()
    block_until(lambda: gone(pid), "the child is gone after its parent")


def test_statuses_have_names() -> None:
    assert describe_status(3) == "status 3"
    assert describe_status(-9) == "SIGKILL"
    assert describe_status(-64 if sys.platform == "linux" else -99) != ""
