"""What is still to be sent, and where to: a message is sent to each destination by itself. Pure.

A destination that has taken a message is not sent it again because another one has failed. One that fails is tried
again, less often each time; a message that it has not taken within a day is given up.
"""

from collections.abc import Iterable
from dataclasses import asdict, dataclass, replace
from typing import Any

from app.ops.alerts import Level, Message

FIRST_RETRY_SECONDS = 30.0
LONGEST_RETRY_SECONDS = 900.0
GIVE_UP_SECONDS = 86400.0
MOST_POSTS = 20
"""Messages that wait; of more, the oldest are given up."""


@dataclass(frozen=True, slots=True)
class Post:
    """A message on its way. Times are the server's, in seconds since 1970."""

    title: str
    body: str
    level: Level
    made: float
    left: dict[str, tuple[int, float]]
    """The destinations that have not taken it yet, by fingerprint: how often each has failed, and when it is due."""

    @classmethod
    def read(cls, stored: dict[str, Any]) -> "Post":
        """From the form that `stored` has.

        Raises:
            ValueError, TypeError, LookupError: it has not.
        """
        left = {name: (int(tries), float(due)) for name, (tries, due) in stored["left"].items()}
        return cls(str(stored["title"]), str(stored["body"]), stored["level"], float(stored["made"]), left)

    @property
    def stored(self) -> dict[str, Any]:
        """For JSON."""
        return asdict(self)

    @property
    def message(self) -> Message:
        """What is to be sent."""
        return Message(self.title, self.body, self.level)

    def due(self, now: float) -> list[str]:
        """The destinations that it is to be sent to now."""
        return [name for name, (_, at) in self.left.items() if at <= now or at > now + LONGEST_RETRY_SECONDS]

    def taken(self, destination: str) -> "Post":
        """What is left once a destination has taken it."""
        return replace(self, left={name: tried for name, tried in self.left.items() if name != destination})

    def failed(self, destination: str, now: float) -> "Post":
        """The same, once more to be sent to a destination later."""
        tries = self.left[destination][0] + 1
        wait = min(FIRST_RETRY_SECONDS * 2.0 ** min(tries - 1, 10), LONGEST_RETRY_SECONDS)
        return replace(self, left={**self.left, destination: (tries, now + wait)})


def post(message: Message, destinations: Iterable[str], now: float) -> Post:
    """A message for these destinations."""
    return Post(message.title, message.body, message.level, now, dict.fromkeys(destinations, (0, now)))


def given_up(posts: dict[str, Post], now: float) -> list[str]:
    """Those that are not worth another try: they are too old, or too many."""
    by_age = sorted(posts, key=lambda name: posts[name].made, reverse=True)
    return [
        name for place, name in enumerate(by_age) if place >= MOST_POSTS or now - posts[name].made >= GIVE_UP_SECONDS
    ]
