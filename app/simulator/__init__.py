"""A JobsiteOn to test against: its API, and its sending of webhooks.

Documented, and kept to: the six resources and their methods; `Authorization: Bearer <key>`; permissions
per entity, to read and to write; 100 requests a minute per key and 429 beyond; `X-Signature`, an HMAC
made with the key; 5 seconds for a 200, and retries otherwise.

Assumed, since none of it is documented. Of the API:

- An object is answered bare, a list as `{"data": […], "next_cursor": …}`; other forms on demand.
- Errors are JSON with an `error`. No key: 401. No permission: 403. No such object: 404. Not an object: 422.
- The minute is a moving window. What is refused with 429 does not count; a 304 does. `Retry-After` is in
  whole seconds, rounded up.
- `Idempotency-Key` is recorded and otherwise ignored: who repeats a write writes twice.
- Every answer may set a cookie, be compressed with gzip, or be late; by default none does.
- `ETag` and 304 are supported; `Cache-Control` is what the test says, by default none.
- The objects are those of `app.delivery.samples`.

Of the sender:

- The MAC is HMAC-SHA256 in hex of the raw body alone; any other `Scheme` on demand.
- It retries after 10 s, 1 min, 5 min, 30 min, 2 h and 6 h, then gives up; any 2xx is a success.
- A redelivery has the same id and the same bytes. Each of this can be switched: a try may be written anew, with
  its number and its time.
"""

from app.simulator.api import Api, CannedAnswer, Permissions, Seen
from app.simulator.sender import Attempt, Clock, Sender
from tests.support.servers import Served, bytes_server, serve

__all__ = [
    "Api",
    "Attempt",
    "CannedAnswer",
    "Clock",
    "Permissions",
    "Seen",
    "Sender",
    "Served",
    "bytes_server",
    "serve",
]
