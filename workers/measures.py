"""What a worker has measured and not sent yet (app/inbox/measured.py)."""

from collections import Counter
from collections.abc import Mapping
from time import monotonic

from app.inbox.measured import Counts, Place

SEND_SECONDS = 1.0
"""Between two times that it is sent: so it costs Redis next to nothing an event, however many there are."""


class Measures:
    """Counts in memory. For one thread."""

    def __init__(self) -> None:
        self._counts: Counter[Place] = Counter()
        self._sent_at = 0.0

    def add(self, counts: Counts) -> None:
        """Counts something."""
        for place, number in counts:
            self._counts[place] += number

    def due(self, *, at_once: bool = False) -> Mapping[Place, int]:
        """What is to be sent now; nothing, if some was sent a moment ago."""
        if at_once or monotonic() - self._sent_at >= SEND_SECONDS:
            return self._counts
        return {}

    def sent(self, counts: Mapping[Place, int]) -> None:
        """What was due has arrived."""
        if counts:
            self._counts.clear()
            self._sent_at = monotonic()
