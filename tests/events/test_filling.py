"""What is told of the first fill; with 30,000 subscriptions it is `python -m verification.convergence.filling`."""

from pathlib import Path

from testkit.seat_world import running_world
from verification.convergence import filling


async def test_fill_tells_no_seat_and_who_begins_during_it_knows_the_truth(
    database_url: str, tmp_path: Path
) -> None:
    """Edits go on from before the fill until after it, and only they are told."""
    sizes = ["--subscriptions", "120", "--rate", "20", "--after", "1"]
    async with running_world("filling", tmp_path, database_url) as world:
        found = await filling.play(world, filling.options().parse_args(sizes))
    assert found["met"], found
    assert found["snapshot_rows"] > 5 * 120 and found["read_after_the_snapshot"] > 0
