"""One filter for everything that lists or changes events: its words, its times, what fits."""

from datetime import UTC, datetime
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.inbox.filter import BadFilter, Filter
from app.inbox.record import STATES, Record

NOW = datetime(2026, 11, 25, 12, tzinfo=UTC).timestamp()


def record(**changes: Any) -> Record:
    error = {"handler": "ledger", "type": "builtins.ValueError", "message": "no such Kwame Nkrumah"}
    meta = {"type": "invoice.paid", "resource": "inv_1", "event_id": "evt_1", "key": "current", "fingerprint": "5f2c9a"}
    fields: dict[bytes, bytes] = {
        b"state": b"dead",
        b"received": b"%d" % ((NOW - 3600) * 1000),
        b"meta": orjson.dumps(meta | changes.pop("meta", {})),
        b"body": b'{"data":{"name":"Zo\\u00eb \\/ M\xc3\xbcller"}}',
        b"since": b"1",
        b"tries:forward https://sink.test/": b'[1,null,"gave up"]',
        b"step:mail / greeting": b'"sent to Ada"',
        b"attempt:1": orjson.dumps(
            {"attempt": 1, "outcome": "dead", "handlers": 2, "error": error | {"traceback": "t"}, "errors": [error]}
        ),
    }
    return Record.from_hash("ab12" * 8, fields | {name.encode(): value for name, value in changes.items()})


@pytest.mark.parametrize(
    ("words", "fits"),
    [
        ({}, True),
        ({"state": "dead,retrying"}, True),
        ({"state": ["done", "queued"]}, False),
        ({"type": "Invoice.*"}, True),
        ({"type": "*.created"}, False),
        ({"resource": "invoice/inv_1"}, True),
        ({"resource": "inv_1"}, True),
        ({"resource": "contact/inv_1"}, False),
        ({"handler": "ledger"}, True),
        ({"handler": "mail"}, True),
        ({"handler": "https://sink.test/"}, True),
        ({"handler": "forward https://sink.test/"}, True),
        ({"handler": "nobody"}, False),
        ({"error": "ValueError"}, True),
        ({"error": "builtins.*"}, True),
        ({"error": "Value*"}, True),
        ({"error": "KeyError"}, False),
        ({"key": "5F2C"}, True),
        ({"key": "current"}, True),
        ({"key": "9a5f"}, False),
        ({"conflict": True}, False),
        ({"unhandled": True}, False),
        ({"since": "2h"}, True),
        ({"since": "30m"}, False),
        ({"since": "2026-11-25T13:00:00+02:00"}, True),
        ({"until": "30m"}, True),
        ({"until": "2h"}, False),
        ({"until": "2026-11-25T11:00:00Z"}, False),
        ({"search": "Müller"}, True),
        ({"search": "Zoë / "}, True),
        ({"search": "Kwame"}, True),
        ({"search": "to Ada"}, True),
        ({"search": "evt_1"}, True),
        ({"search": "ab12ab12"}, True),
        ({"search": "nowhere"}, False),
        ({"state": "dead", "type": "invoice.*", "search": "nowhere"}, False),
    ],
)
def test_an_event_fits_if_it_fits_every_word(words: dict[str, Any], fits: bool) -> None:
    assert Filter.of(words).fits(record(), NOW) is fits


def test_conflicts_and_what_nobody_wanted() -> None:
    assert Filter.of({"conflict": True}).fits(record(conflict_of=b"other"), NOW)
    ended = {"state": b"done", "attempt:1": b'{"attempt":1,"outcome":"done","handlers":0}'}
    assert Filter.of({"unhandled": True}).fits(record(**ended), NOW)


@pytest.mark.parametrize(
    ("words", "word", "says"),
    [
        ({"state": "finished"}, "state", "'finished' is none of queued, running, retrying, done, dead"),
        ({"state": ""}, "state", "none of"),
        ({"since": "yesterday"}, "since", "write a duration such as"),
        ({"since": "7"}, "since", "write 7d"),
        ({"until": "2026-11-25T11:00:00"}, "until", "no time zone"),
        ({"until": "2026-11-25"}, "until", "no time zone"),
        ({"type": " "}, "type", "write something"),
        ({"search": ""}, "search", "write something"),
        ({"search": "x" * 1001}, "search", "longer than 1000"),
        ({"conflict": "perhaps"}, "conflict", "either there"),
        ({"stat": "dead"}, "stat", "state, type, resource"),
    ],
)
def test_a_word_that_is_not_understood_is_refused(words: dict[str, Any], word: str, says: str) -> None:
    """P10."""
    with pytest.raises(BadFilter, match=says) as raised:
        Filter.of(words)
    assert raised.value.word == word


def test_a_word_that_comes_twice_in_a_url_is_refused() -> None:
    with pytest.raises(BadFilter, match="twice"):
        Filter.from_query("type=a&type=b")


TEXTS = st.text(st.characters(codec="utf-8"), min_size=1, max_size=20).filter(str.strip)
WORDS = st.fixed_dictionaries(
    {},
    optional={
        "state": st.lists(st.sampled_from(STATES), min_size=1),
        **dict.fromkeys(("type", "resource", "handler", "error", "search"), TEXTS),
        "key": st.sampled_from(["current", "5f2c", "previous 1"]),
        **dict.fromkeys(("conflict", "unhandled"), st.booleans()),
        **dict.fromkeys(("since", "until"), st.sampled_from(["2d", "1h30m", "2026-11-25T13:00:00+02:00"])),
    },
)


@given(WORDS)
def test_a_filter_is_the_same_after_it_has_been_in_a_url(words: dict[str, Any]) -> None:
    filter = Filter.of(words)
    assert Filter.from_query(filter.to_query()) == filter
    assert Filter.of(filter.words()) == filter
