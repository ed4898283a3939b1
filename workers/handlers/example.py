"""An example to edit first. A handler is a function that takes an event; what it raises is retried."""

import logging

from workers import on
from workers.event import Event

logger = logging.getLogger(__name__)


@on("invoice.paid")
def thank(event: Event) -> None:
    """Thanks for a payment. `event.id` is the same however often the event comes: pass it on."""
    logger.info("thank-you note for invoice %s (idempotency key %s)", event.resource, event.id)
