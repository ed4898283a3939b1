"""What a run has shown, as a table for people, as Markdown for the README, as JSON for scripts."""

from collections.abc import Iterable
from dataclasses import asdict, dataclass
from statistics import median
from typing import Any

from rich.table import Table

from tests.chaos.fault import Fault
from tests.chaos.ledger import Episode, Ledger
from tests.chaos.oracle import acknowledged, repeats
from tests.chaos.runner import Outcome

HEADINGS = ("fault", "times", "acknowledged", "lost", "repeated effects", "heals in, median", "worst")


@dataclass(frozen=True, slots=True)
class Row:
    """One kind of fault, all its episodes together."""

    fault: str
    times: int
    acknowledged: int
    lost: int
    repeated: int
    """Effects of a step that was cut in the middle: with the same idempotency key."""
    seconds: tuple[float, ...]
    """To heal, each time."""
    note: str | None = None

    @property
    def median(self) -> float:
        """Seconds to heal."""
        return median(self.seconds or (0.0,))

    @property
    def worst(self) -> float:
        """Seconds to heal."""
        return max(self.seconds, default=0.0)

    def cells(self) -> tuple[str, ...]:
        """As text."""
        if self.note:
            return self.fault, self.note, *[""] * (len(HEADINGS) - 2)
        counts = (self.times, self.acknowledged, self.lost, self.repeated)
        return self.fault, *(f"{count:,}" for count in counts), *(f"{s:.1f} s" for s in (self.median, self.worst))


def rows(ledger: Ledger, outcome: Outcome, faults: Iterable[Fault]) -> list[Row]:
    """The table: a line for each kind of fault, also for those that could not be injected."""
    acks = [d.answered or 0.0 for known in acknowledged(ledger.deliveries).values() for d in known]
    lost = [v.at for v in outcome.violations if v.rule == "lost"]
    again = [repeat.at for repeat in repeats(outcome.evidence)]
    found: dict[str, Row] = {}
    for fault in faults:
        episodes = [episode for episode in ledger.episodes if episode.row == fault.row]
        if episodes:
            acked, gone, repeated = (sum(_within(episodes, ledger.episodes, times)) for times in (acks, lost, again))
            seconds = tuple(episode.seconds for episode in episodes)
            found[fault.row] = Row(fault.row, len(episodes), acked, gone, repeated, seconds)
        else:
            found[fault.row] = Row(fault.row, 0, 0, 0, 0, (), f"not run: {fault.missing or 'no time'}")
    return list(found.values())


def _within(episodes: list[Episode], all_: list[Episode], times: list[float]) -> Iterable[int]:
    """How many of the times lie in each episode, which lasts until the next one begins."""
    begins = sorted(episode.begun for episode in all_)
    for episode in episodes:
        end = min((begun for begun in begins if begun > episode.begun), default=float("inf"))
        yield sum(episode.begun <= at < end for at in times)


def total(table: list[Row]) -> Row:
    """The last line."""
    run = [row for row in table if row.times]
    return Row(
        "all",
        sum(row.times for row in run),
        sum(row.acknowledged for row in run),
        sum(row.lost for row in run),
        sum(row.repeated for row in run),
        tuple(second for row in run for second in row.seconds),
    )


def table(lines: list[Row]) -> Table:
    """For a terminal."""
    shown = Table(*HEADINGS)
    for column in shown.columns[1:]:
        column.justify = "right"
    for row in (*lines, total(lines)):
        shown.add_row(*row.cells())
    return shown


def markdown(lines: list[Row]) -> str:
    """For the README."""
    head = ["| " + " | ".join(HEADINGS) + " |", "|---|" + "--:|" * (len(HEADINGS) - 1)]
    return "\n".join([*head, *("| " + " | ".join(row.cells()) + " |" for row in (*lines, total(lines)))])


def as_json(lines: list[Row], outcomes: list[Outcome], seed: int) -> dict[str, Any]:
    """For scripts."""
    return {
        "seed": seed,
        "seconds": round(sum(outcome.seconds for outcome in outcomes), 1),
        "rows": [asdict(row) for row in lines],
        "violations": [asdict(violation) for outcome in outcomes for violation in outcome.violations],
    }
