"""Lists: every known form of paging, and none that is cut short in silence."""

from collections.abc import Iterator
from typing import Any, get_args

import orjson
import pytest
from redis import Redis

from app.config.settings import Settings
from app.simulator import CannedAnswer
from app.simulator.api import Paging as Form
from tests.support.world import KINDS, Client, Plain, World, world
from workers.jobsiteon import BadResponse, JobsiteOn
from workers.jobsiteon import answers as api_answers
from workers.jobsiteon.answers import Answer
from workers.jobsiteon.paging import MOST_PAGES, AnyForm, Next

IDS = [f"con_100{number}" for number in range(1, 6)]


@pytest.fixture
def jobsiteon(redis: "Redis", settings: Settings) -> Iterator[World]:
    with world(settings) as made:
        yield made


@pytest.fixture(params=KINDS)
def client(request: pytest.FixtureRequest, jobsiteon: World) -> Client:
    return jobsiteon.client(request.param)


@pytest.mark.parametrize("form", [form for form in get_args(Form) if form != "stuck"])
def test_every_form_is_walked_to_its_end(client: Client, jobsiteon: World, form: Form) -> None:
    jobsiteon.api.paging = form
    assert [contact["id"] for contact in client.items("/contacts", city="Boulder")] == IDS
    assert [len(page) for page in client.pages("/contacts")] == ([5] if form == "bare" else [2, 2, 1])


@pytest.mark.parametrize("form", get_args(Form))
def test_so_is_it_with_cookies_compressed_and_slow(client: Client, jobsiteon: World, form: Form) -> None:
    api = jobsiteon.api
    api.paging, api.cookie, api.gzips, api.delay = form, "name=\xe9; Path=/", True, 0.01
    if form == "stuck":
        with pytest.raises(BadResponse, match="same again"):
            client.items("/contacts")
    else:
        assert [contact["id"] for contact in client.items("/contacts")] == IDS
    assert {seen.cookie for seen in api.seen} == {None}


def test_parameters_are_kept_from_page_to_page(client: Client, jobsiteon: World) -> None:
    client.items("/contacts", city="Boulder")
    assert all("city=Boulder" in seen.query for seen in jobsiteon.api.seen)


def test_pages_are_fetched_when_they_are_asked_for(jobsiteon: World) -> None:
    with JobsiteOn(jobsiteon.settings) as client:
        contacts = iter(client.contacts.list())
        assert not jobsiteon.api.seen
        next(contacts)
        next(contacts)
        assert len(jobsiteon.api.seen) == 1
        next(contacts)
        assert len(jobsiteon.api.seen) == 2


def test_a_page_that_repeats_itself_is_an_error(client: Client, jobsiteon: World) -> None:
    """The cursor that was guessed is not understood: better no list than half of one."""
    jobsiteon.api.paging = "stuck"
    with pytest.raises(BadResponse, match="same again"):
        client.items("/contacts")
    assert len(jobsiteon.api.seen) == 2


def test_more_without_a_way_to_it_is_an_error(client: Client, jobsiteon: World) -> None:
    jobsiteon.api.next_answers.append(CannedAnswer(body=b'{"data":["a"],"has_more":true}'))
    with pytest.raises(BadResponse, match="no way"):
        client.items("/contacts")


@pytest.mark.parametrize("body", [b'{"id":"con_1"}', b'{"data":{"id":1}}', b"3", b"null", b'"x"'])
def test_what_is_no_list_is_an_error(client: Client, jobsiteon: World, body: bytes) -> None:
    jobsiteon.api.next_answers.append(CannedAnswer(body=body))
    with pytest.raises(BadResponse):
        client.items("/contacts")


def test_an_empty_list(client: Client, jobsiteon: World) -> None:
    jobsiteon.api.next_answers.append(CannedAnswer(body=b'{"data":[],"has_more":false}'))
    assert client.pages("/contacts") == [[]]


def test_it_ends(redis: "Redis", jobsiteon: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("workers.jobsiteon.paging.MOST_PAGES", 3)
    jobsiteon.api.next_answers += [
        CannedAnswer(body=orjson.dumps({"data": [number], "next_cursor": str(number)})) for number in range(9)
    ]
    with pytest.raises(BadResponse, match="after 3 pages"):
        jobsiteon.client().items("/contacts")
    assert len(jobsiteon.api.seen) == 3
    assert MOST_PAGES > 3


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        ([], None),
        ({}, None),
        ({"next": None}, None),
        ({"next": ""}, None),
        ({"next": "https://x.test/?page=2", "has_more": False}, None),
        ({"next": "?page=2"}, "?page=2"),
        ({"_links": {"next": {"href": "/v1/contacts?page=2"}}}, "/v1/contacts?page=2"),
        ({"paging": {"next": "abc"}}, {"cursor": "abc"}),
        ({"meta": {"next_cursor": "abc"}}, {"cursor": "abc"}),
        ({"nextPageToken": "abc"}, {"pageToken": "abc"}),
        ({"page_info": {"end_cursor": "abc", "has_next_page": True}}, {"after": "abc"}),
        ({"pageInfo": {"endCursor": "abc", "hasNextPage": False}}, None),
        ({"next_page": 3}, {"page": 3}),
        ({"page": 1, "total_pages": 2}, {"page": 2}),
        ({"meta": {"current_page": 2, "last_page": 2}}, None),
        ({"total": 2}, None),
        ({"has_more": True}, {"starting_after": "last"}),
        ({"has_more": "true"}, {"starting_after": "last"}),
        ({"hasNext": 0, "page": 1}, None),
        ({"meta": {"pagination": {"current_page": 1, "total_pages": 3}}}, {"page": 2}),
        ({"meta": {"pagination": {"current_page": 3, "total_pages": 3}}}, None),
        ({"page": "1", "total_pages": "3"}, {"page": 2}),
        ({"next": 2}, {"page": 2}),
        ({"next": "2"}, {"page": 2}),
        ({"next": 20, "offset": 10}, {"offset": 20}),
        ({"nextPage": 2}, {"page": 2}),
        ({"page": 1, "per_page": 2, "total": 3}, {"page": 2}),
        ({"page": 2, "per_page": 2, "total": 4}, None),
        ({"page": 1, "per_page": 2}, {"page": 2}),
        ({"page": 1, "per_page": 3}, None),
        ({"limit": 2, "offset": 0, "total_count": 3}, {"offset": 2}),
        ({"limit": 2, "offset": 2, "total_count": 4}, None),
        ({"skip": 0, "limit": 2}, {"skip": 2}),
        ({"nextLink": "https://x.test/contacts?page=2"}, "https://x.test/contacts?page=2"),
        ({"@odata.nextLink": "/v1/contacts?page=2"}, "/v1/contacts?page=2"),
        ({"next_cursor": 7}, {"cursor": 7}),
        ({"meta": {"request_id": "x"}, "links": {"self": "/v1/contacts"}}, None),
        # Pages in words that are not known here: better no list than a part of one.
        ({"page": 1}, {}),
        ({"page": True, "total_pages": 9}, {}),
        ({"pagination": {"weiter": "abc"}}, {}),
        ({"next_token": "abc"}, {}),
        ({"nextPageKey": "abc"}, {}),
        ({"more": "abc"}, {}),
    ],
)
def test_what_a_page_says_of_the_next(body: Any, expected: Next) -> None:
    assert AnyForm().next(api_answers.Answer(body), [{"id": "first"}, {"id": "last"}]) == expected


def test_another_way_of_paging_can_be_given(jobsiteon: World) -> None:
    class Offset(AnyForm):
        def next(self, answer: api_answers.Answer, items: list[Any]) -> Next:
            return {"cursor": "con_1004"} if len(items) > 1 else None

    with Plain(jobsiteon.settings, paging=Offset()) as client:
        assert [contact["id"] for contact in client.items("/contacts")] == [*IDS[:2], IDS[4]]


@pytest.mark.parametrize("body", [b'{"data":[1,2],"total":100}', b'{"data":[1],"meta":{"total_count":2}}'])
def test_fewer_items_than_there_are_said_to_be_are_an_error(client: Client, jobsiteon: World, body: bytes) -> None:
    jobsiteon.api.next_answers.append(CannedAnswer(body=body))
    with pytest.raises(BadResponse, match="no way to the rest"):
        client.items("/contacts")


@pytest.mark.parametrize(
    "header",
    [
        '</v1/contacts?cursor=a,b;c>; rel="next"',
        '</v1/contacts?page=9>; rel=last, </v1/contacts?cursor=a,b;c>; title="a, b; <c> \\" rel=prev" ; REL = NEXT',
        '</v1/contacts?cursor=a,b;c>; rel="prefetch next"; rel=prev',
        '</v1/x>; rel=next; anchor="#other",</v1/contacts?cursor=a,b;c>;rel=next',
    ],
)
def test_a_link_is_read_by_its_rfc(jobsiteon: World, client: Client, header: str) -> None:
    """RFC 8288: a comma, a semicolon and more may be part of a target or of a quoted value."""
    jobsiteon.api.next_answers += [CannedAnswer(body=b"[1]", headers={"link": header}), CannedAnswer(body=b"[2]")]
    assert client.items("/contacts") == [1, 2]
    assert jobsiteon.api.seen[1].query in ("cursor=a,b;c", "cursor=a%2Cb%3Bc")


@pytest.mark.parametrize("header", ["/v1/contacts?page=2; rel=next", "</v1/contacts?page=2; rel=next", "<x> rel=next"])
def test_a_link_that_is_broken_is_an_error(jobsiteon: World, client: Client, header: str) -> None:
    jobsiteon.api.next_answers += [CannedAnswer(body=b"[1]", headers={"link": header})]
    with pytest.raises(BadResponse, match="Link"):
        client.items("/contacts")


def test_the_last_page_of_links_has_none(jobsiteon: World, client: Client) -> None:
    headers = {"link": '</v1/contacts?page=1>; rel="prev"'}
    jobsiteon.api.next_answers += [CannedAnswer(body=b'{"data":[1],"page":2}', headers=headers)]
    assert client.items("/contacts") == [1]


@pytest.mark.parametrize(
    "said",
    [
        {"page": 0, "page_size": 50, "next_page_uri": "/x?page=1"},
        {"paging": {"next": {"after": "x"}}},
        {"paging": {"cursors": {"before": "x", "after": "y"}}},
        {"is_truncated": True},
        {"IsTruncated": True, "NextMarker": "b"},
        {"NextToken": "b"},
        {"continuationToken": "b"},
        {"LastEvaluatedKey": {"id": "b"}},
        {"hasNext": "yes"},
        {"moreItems": True},
        {"nextRecordsUrl": "/x"},
        {"done": False},
        {"last": False, "number": 0, "size": 2},
        {"_page": 1, "_pages": 3},
        {"pageIndex": 0, "pageCount": 3},
        {"response_metadata": {"next_cursor": "x"}},
        {"metadata": {"next": "/x?page=2"}},
        {"_meta": {"next_cursor": "x"}},
        {"cursors": {"next": "abc"}},
        {"meta": {"page": {"current": 1, "total": 3}}},
    ],
    ids=str,
)
def test_what_promises_more_in_other_words_is_no_whole_list(said: dict[str, Any]) -> None:
    items = [{"id": "a"}, {"id": "b"}]
    assert AnyForm().next(Answer({"data": items} | said), items) == {}


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        ({"meta": {"pagination": {"links": {"next": "/x?page=2"}}}}, "/x?page=2"),
        ({"links": [{"rel": "self", "href": "/x"}, {"rel": "next", "href": "/x?page=2"}]}, "/x?page=2"),
        ({"links": [{"rel": "self", "href": "/x"}, {"rel": "prev", "href": "/x"}]}, None),
        ({"start": 0, "limit": 2, "size": 2}, {"start": 2}),
        ({"start": 4, "limit": 5, "size": 2}, None),
        ({"done": True, "is_truncated": False, "NextToken": None, "moreItems": False}, None),
        ({"meta": {"request_id": "x", "nextcloud": None}}, None),
    ],
    ids=str,
)
def test_more_ways_of_saying_it(said: dict[str, Any], expected: Next) -> None:
    items = [{"id": "a"}, {"id": "b"}]
    assert AnyForm().next(Answer({"data": items} | said), items) == expected


@pytest.mark.parametrize("name", ["count", "total_records", "totalElements"])
def test_a_count_of_more_than_came_is_an_error(client: Client, jobsiteon: World, name: str) -> None:
    jobsiteon.api.next_answers.append(CannedAnswer(body=orjson.dumps({"data": [{"id": "a"}], name: 50})))
    with pytest.raises(BadResponse, match="1 items came, of 50"):
        client.items("/contacts")
