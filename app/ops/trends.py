"""What only time shows: how much fails, whether refused signatures rise, whether deliveries have stopped. Pure.

Samples of the inbox's counters are taken now and then; what happened is the difference to an earlier one.
"""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

from app.ops.alerts import Finding, at
from app.units import format_duration

WINDOW_SECONDS = 900.0
"""What is looked at together."""
SAMPLE_SECONDS = 60.0
"""Between two samples that are remembered."""
FEWEST_ATTEMPTS = 20
"""Attempts in the window below which their failures tell nothing."""
FEWEST_REFUSED = 10
REFUSED_SHARE = 0.1
"""Of all deliveries in the window, from which on refused signatures are more than strangers that try the door."""


class Sample(NamedTuple):
    """Counters since ever, at a time (the server's, in seconds since 1970)."""

    at: float
    attempts: int
    failed: int
    deliveries: int
    refused: int


def sample(now: float, counts: dict[str, int]) -> Sample:
    """What the inbox has counted by now."""
    failed = sum(counts.get(f"attempts:{outcome}", 0) for outcome in ("retry", "dead", "crashed"))
    deliveries = sum(number for name, number in counts.items() if name.startswith("deliveries:"))
    return Sample(now, failed + counts.get("attempts:done", 0), failed, deliveries, counts.get("refused:signature", 0))


def remembered(samples: Sequence[Sample], new: Sample) -> list[Sample]:
    """The samples for the next look: as many as the window needs, the oldest first.

    Those from before a counter was set back, or from the future, are of no use.
    """
    useful = [
        one
        for one in samples
        if one.at <= new.at and all(was <= now for was, now in zip(one[1:], new[1:], strict=True))
    ]
    # One from before the window's beginning is kept: it is what the others are compared with.
    inside = [one for one in useful if one.at > new.at - WINDOW_SECONDS]
    before = [one for one in useful if new.at - 2 * WINDOW_SECONDS < one.at <= new.at - WINDOW_SECONDS][-1:]
    if inside and new.at - inside[-1].at < SAMPLE_SECONDS:
        return before + inside
    return [*before, *inside, new]


def rates(samples: Sequence[Sample], now: Sample, failures_percent: int) -> Iterator[Finding]:
    """What has happened since the oldest sample of the window."""
    usable = remembered(samples, now)
    base = usable[0]
    attempts, failed, deliveries, refused = (new - old for new, old in zip(now[1:], base[1:], strict=True))
    within = format_duration(round(WINDOW_SECONDS))
    if failures_percent and attempts >= FEWEST_ATTEMPTS and 100 * failed >= failures_percent * attempts:
        yield Finding(
            "failures",
            f"many attempts fail: {failed} of {attempts} within {within}",
            "see which ones and why: `jobhook events --state retrying`, then `jobhook event ID`",
            quiet=WINDOW_SECONDS / 3,
        )
    if refused >= FEWEST_REFUSED and refused >= REFUSED_SHARE * (refused + deliveries):
        yield Finding(
            "refused",
            f"signatures are refused: {refused} within {within}, while {deliveries} deliveries were accepted",
            "see `jobhook rejected` and `jobhook diagnose`: a key may have been replaced in JobsiteOn and not here",
            quiet=WINDOW_SECONDS / 3,
        )


def silence(last: float | None, now: float, longest: float) -> Iterator[Finding]:
    """Whether deliveries have stopped: `last` is when one was last verified, if there ever was one."""
    if longest and last is not None and now - last >= longest:
        yield Finding(
            "silence",
            f"no delivery has come since {at(last)}",
            "see in JobsiteOn whether the webhook is still registered with this URL and switched on, and whether "
            "`jobhook send job.created --url` reaches it from outside",
            quiet=0.0,
        )
