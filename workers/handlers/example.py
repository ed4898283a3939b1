"""An example to edit first. A handler is a function that takes an event; what it raises is retried.

It runs in `jobhook dev` only (`make run`), because it would call JobsiteOn's API with your key for every paid
invoice. Make it yours, and leave `dev_only` out.
"""

import logging

from workers import Event, JobsiteOn, on

logger = logging.getLogger(__name__)


@on("invoice.paid", dev_only=True)
def thank(event: Event, jobsiteon: JobsiteOn) -> None:
    """Thanks for a payment, once, however often the event comes or this function is tried."""
    contact = jobsiteon.contacts.get(event.data["contact_id"])
    event.once("thank-you mail", lambda key: send_mail(contact, key))


def send_mail(contact: dict[str, object], idempotency_key: str) -> None:
    """Here your mail service would be called, with the key, so that it sends each mail once."""
    logger.info("thank-you mail to contact %s (idempotency key %s)", contact["id"], idempotency_key)
