"""The function that an event's RQ job names: for stock RQ workers. Jobhook's own take a shorter way.

The name `workers.process.process` is stored in Redis with every job, and other versions of Jobhook call it
by that name: it stays where it is.
"""

import os
import socket
from functools import cache
from typing import cast

from rq.job import Job, get_current_job

from app.config.sources import load_settings
from app.inbox.inbox import Inbox, connect
from app.inbox.record import Ended
from workers.loading import load
from workers.processor import Processor


def process() -> None:
    """Processes the event of the current RQ job."""
    id = cast(Job, get_current_job()).id
    processor = _processor()
    assignment = processor._inbox.work(f"{socket.gethostname()}-{os.getpid()}", want=id)
    ended = processor.process(assignment.taken, assignment.paused) if assignment.taken else None
    if assignment.taken and ended and _record(processor, ended):
        processor.tell_of(ended, assignment.taken)


def _record(processor: Processor, ended: Ended) -> bool | None:
    return processor._inbox.work("", ended, want="", counts=processor.measures.due(at_once=True)).recorded


@cache
def _processor() -> Processor:
    settings = load_settings()
    processor = Processor(Inbox(connect(settings), settings), load(settings))
    processor.follow_keys()
    return processor
