"""`queue`: list what waits for each model, by owner, and for how long it will."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from lifecycle.cli import output
from lifecycle.cli.flags import OPERATOR, with_settings
from lifecycle.cli.options import Json
from lifecycle.cli.output import NONE, Cell, duration
from lifecycle.records import ModelQueue
from lifecycle.settings import Settings

if TYPE_CHECKING:
    from lifecycle.store.transitions import Store

QUEUE_HEADS = ["MODEL", "OWNER", "WEIGHT", "QUEUED", "OLDEST", "WAIT", "DRAIN/S"]


@with_settings(OPERATOR)
def queue(
    settings: Settings,
    model: Annotated[str, typer.Option(help="Only the queue of this model.")] = "",
    json: Json = False,
) -> int:
    """List what waits for each model, by owner, and how long the last request of each owner will wait."""
    from lifecycle.cli.operate import operate
    from lifecycle.queries import queues

    async def work(store: Store) -> int:
        found = await queues.read_queues(store, model)
        if json:
            output.write_json({"object": "list", "data": [entry.to_json() for entry in found]})
            return 0
        output.write("\n".join(output.table(QUEUE_HEADS, (row for entry in found for row in queue_rows(entry)))))
        return 0

    return operate(settings, work)


def queue_rows(queue: ModelQueue) -> list[list[str | Cell]]:
    """Return rows for QUEUE_HEADS: one for each owner, and the model's total as the last."""
    rows: list[list[str | Cell]] = [
        [
            queue.model,
            owner.owner or NONE,
            f"{owner.weight:g}",
            str(owner.queued),
            duration(owner.oldest_secs),
            duration(owner.estimated_wait_secs),
            NONE,
        ]
        for owner in queue.owners
    ]
    oldest = duration(queue.oldest_secs if queue.queued else None)
    return [*rows, [queue.model, "total", NONE, str(queue.queued), oldest, NONE, f"{queue.drain_per_sec:.2f}"]]
