"""An example to edit first. A handler is a function that takes an event; what it raises is retried."""

import logging

from workers import on
from workers.event import Event
from workers.jobsiteon import JobsiteOn

logger = logging.getLogger(__name__)


@on("invoice.paid")
def thank(event: Event, jobsiteon: JobsiteOn) -> None:
    """Thanks for a payment, once, however often the event comes or this function is tried."""
    contact = jobsiteon.contacts.get(event.data["contact_id"])
    event.once("thank-you mail", lambda key: send_mail(contact, key))


def send_mail(contact: dict[str, object], idempotency_key: str) -> None:
    """Here your mail service would be called, with the key, so that it sends each mail once."""
    logger.info("thank-you mail to contact %s (idempotency key %s)", contact["id"], idempotency_key)
