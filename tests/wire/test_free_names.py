"""Free relays and the DNS: each connection, and each hop, goes where one look-up said.

One address of loopback counts as public here, so that an upstream can be there. Beside it, at the
same port of another address, somebody waits whom nobody may reach.
"""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from http.client import IncompleteRead
from urllib.parse import quote
from uuid import uuid4

import pytest

from service.download import guard
from tests.clients import Answer, ask
from tests.names import Answer as Found
from tests.names import Names, unknown
from tests.threaded import threaded
from tests.upstream import Canary, Upstream, content, target, upstream
from tests.waiting import wait_until
from tests.wire.problems import check_problem

PUBLIC, INSIDE = "127.0.0.1", "127.0.0.3"
WITHIN = 30.0  # seconds
CONNECT = 0.5  # seconds, as the setting
SIZE = 1000


@dataclass(slots=True)
class World:
    """``name`` and ``other`` are each test's own: connections to an earlier one may be open."""

    base: str
    names: Names
    up: Upstream
    inside: Canary
    name: str = ""
    other: str = ""

    def url(self, path: str = "/file", host: str | None = None) -> str:
        return f"http://{host or self.name}:{self.up.port}{path}"

    def get(self, url: str, *headers: tuple[str, str], method: str = "GET") -> Answer:
        return ask(self.base, f"/v1/relay?url={quote(url, safe='')}", method, dict(headers))

    def asked(self, host: str) -> int:
        """How often it has been looked up."""
        return sum(name == host for name, _ in self.names.asked)


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory, module_database_url: str) -> Iterator[World]:
    refusal = guard.refusal

    def refused(address: str) -> str | None:
        return None if address == PUBLIC else refusal(address)

    with ExitStack() as stack:
        stack.enter_context(pytest.MonkeyPatch.context()).setattr(guard, "refusal", refused)
        up = stack.enter_context(upstream())
        inside = Canary([stack.enter_context(socket.create_server((INSIDE, up.port)))])
        stack.enter_context(inside.listener.running())
        names = Names()
        settings = {
            "relay__allow_urls": True,
            "relay__ports": [80, 443, up.port],
            "relay__connect_timeout": f"{CONNECT}s",
            "relay__retries": 2,
        }
        folder = tmp_path_factory.mktemp("names")
        base = stack.enter_context(threaded(folder, module_database_url, names, **settings))
        yield World(base, names, up, inside)


@pytest.fixture
def world(running: World) -> Iterator[World]:
    running.up.forget()
    running.names.asked.clear()
    own = uuid4().hex
    running.name, running.other = f"{own}.example", f"cdn.{own}.example"
    running.names.serve(running.name, [PUBLIC])
    running.names.serve(running.other, [PUBLIC])
    yield running
    assert running.inside.hits == 0


def told(location: str, **more: object) -> str:
    """A path that redirects."""
    return target("/file", redirect=location, size=0, **more)


def test_one_look_up_for_one_connection(world: World) -> None:
    world.names.serve(world.name, [PUBLIC], [INSIDE])
    answer = world.get(world.url(target("/file", size=SIZE, close="")))
    assert (answer.status, answer.body) == (200, content(SIZE))
    assert world.names.asked == [(world.name, world.up.port)]
    (request,) = world.up.seen
    assert request.header("Host") == f"{world.name}:{world.up.port}"


def test_a_name_that_moves_inside(world: World) -> None:
    world.names.serve(world.name, [PUBLIC], [INSIDE])
    url = world.url(target("/file", size=SIZE, close=""))
    assert world.get(url).status == 200
    wait_until(world.up.connections[-1].closed.is_set, within=WITHIN, what="it is closed")
    check_problem(world.get(url), 403, "address_refused")
    assert world.asked(world.name) == 2
    assert len(world.up.seen) == 1


def test_a_name_that_moves_inside_while_a_download_goes_on(world: World) -> None:
    """The rest of a download that broke off is asked for at an address of its own decision."""
    world.names.serve(world.name, [PUBLIC], [INSIDE])
    broken = target("/file", size=100_000, etag='"a"', ranges=1, cut=50_000, cut_times=1)
    with pytest.raises(IncompleteRead) as caught:
        world.get(world.url(broken))
    assert caught.value.partial == content(100_000)[: len(caught.value.partial)]
    assert world.asked(world.name) == 2
    assert len(world.up.seen) == 1


def test_a_download_that_broke_off_goes_on_where_it_may(world: World) -> None:
    broken = target("/file", size=100_000, etag='"a"', ranges=1, cut=50_000, cut_times=1)
    answer = world.get(world.url(broken))
    assert answer.body == content(100_000)
    assert world.asked(world.name) == 2


@pytest.mark.parametrize(
    "found",
    [
        [INSIDE],
        [PUBLIC, INSIDE],
        [INSIDE, PUBLIC],
        [PUBLIC, "::1"],
        [f"::ffff:{PUBLIC}"],
        ["::ffff:8.8.8.8"],
        ["64:ff9b::7f00:3"],
        ["fe80::1%1"],
        ["169.254.169.254"],
        [],
    ],
    ids=str,
)
def test_a_name_that_is_inside(found: list[str], world: World) -> None:
    world.names.serve(world.name, found)
    answer = world.get(world.url())
    check_problem(answer, 403, "address_refused")
    # Where the name points is not for the caller to know.
    assert not any(address in answer.json()["detail"] for address in found)
    assert world.up.seen == []


@pytest.mark.parametrize(
    ("found", "status", "code"),
    [
        (unknown(), 502, "upstream_unavailable"),
        (socket.gaierror(socket.EAI_AGAIN, "again"), 502, "upstream_unavailable"),
        (None, 504, "upstream_timeout"),
    ],
    ids=["unknown", "again", "silent"],
)
def test_a_name_that_is_not_found(found: Found, status: int, code: str, world: World) -> None:
    world.names.serve(world.name, found)
    check_problem(world.get(world.url()), status, code)


def test_a_name_in_other_letters(world: World) -> None:
    world.names.serve("xn--bcher-kva.example", [PUBLIC])
    for host in ("bücher.example", "Bücher.EXAMPLE", "xn--bcher-kva.example"):
        answer = world.get(world.url(target("/file", size=SIZE), host))
        assert (answer.status, answer.body) == (200, content(SIZE))
    assert {name for name, _ in world.names.asked} == {"xn--bcher-kva.example"}
    hosts = {request.header("Host") for request in world.up.seen}
    assert hosts == {f"xn--bcher-kva.example:{world.up.port}"}


@pytest.mark.parametrize(
    ("asked", "sent"),
    [
        ("/a#b", "/a"),
        ("#b", "/"),
        ("?size=1#x?y", "/?size=1"),
        ("/é/%20?key=ü", "/%C3%A9/%20?key=%C3%BC"),
        ("/%2F%5c%00", "/%2F%5c%00"),
        ("//a//b", "//a//b"),
        ("/{a}|^", "/%7Ba%7D%7C%5E"),
    ],
)
def test_what_is_asked_for(asked: str, sent: str, world: World) -> None:
    answer = world.get(world.url(asked))
    assert answer.status == 200
    (request,) = world.up.seen
    assert request.target == sent
    export = answer.export_id
    record = f"/v1/exports/{export}"

    def state() -> object:
        return ask(world.base, record).json().get("state")

    wait_until(lambda: state() == "succeeded", within=WITHIN, what="the record is written")
    receipt = ask(world.base, f"{record}/receipt").json()
    assert (receipt["outcome"], receipt["bytes"]) == ("complete", len(answer.body))


def test_nothing_of_the_client_goes_on_but_what_a_download_needs(world: World) -> None:
    secrets = ("Authorization", "Cookie", "Proxy-Authorization", "X-Api-Key", "X-Forwarded-For")
    fields = [(name, "s3cret") for name in (*secrets, "Referer", "Forwarded", "From", "Origin")]
    path = told(f"http://{world.other}:{world.up.port}/there?size=5")
    answer = world.get(world.url(path), *fields, ("Accept", "text/csv"))
    assert (answer.status, answer.body) == (200, content(5))
    assert [request.path for request in world.up.seen] == ["/file", "/there"]
    for request in world.up.seen:
        assert b"s3cret" not in request.raw
        assert request.header("Accept") == "text/csv"
        names = {name.lower() for name, _ in request.headers}
        assert names == {"host", "accept", "accept-encoding", "via"}


@pytest.mark.parametrize(
    ("location", "path"),
    [
        ("/there?size=5", "/there"),
        ("there?size=5", "/a/there"),
        ("../there?size=5", "/there"),
        ("./there?size=5", "/a/there"),
        ("?size=5", "/a/file"),
        ("//{name}:{port}/there?size=5", "/there"),
        ("http://{name}:{port}/there?size=5#part", "/there"),
        ("HTTP://{name}:{port}/there?size=5", "/there"),
        ("http://{other}:{port}/there?size=5", "/there"),
        ("http://127.0.0.1:{port}/there?size=5", "/there"),  # public, here
        # As urljoin reads what names no host: below the one that sent it.
        ("http:/127.0.0.3:{port}/?size=5", "/127.0.0.3:{port}/"),
        ("http:///127.0.0.3:{port}/?size=5", "/127.0.0.3:{port}/"),
        ("///127.0.0.3:{port}/?size=5", "/127.0.0.3:{port}/"),
    ],
)
@pytest.mark.parametrize("code", [301, 302, 303, 307, 308])
def test_a_redirect_that_is_followed(location: str, path: str, code: int, world: World) -> None:
    where = location.format(name=world.name, other=world.other, port=world.up.port)
    redirect = target("/a/file", redirect=where, code=code, size=0)
    answer = world.get(world.url(redirect))
    assert (answer.status, answer.body) == (200, content(5))
    assert [request.path for request in world.up.seen] == [
        "/a/file",
        path.format(port=world.up.port),
    ]


@pytest.mark.parametrize(
    "location",
    [
        "http://127.0.0.3:{port}/",
        "//127.0.0.3:{port}/",
        "http://127.3:{port}/",
        "http://0x7f000003:{port}/",
        "http://localhost:{port}/",
        "http://[::1]:{port}/",
        "http://[::ffff:127.0.0.3]:{port}/",
        "http://[::1/",
        "http://[::1]]:{port}/",
        "http://169.254.169.254/latest/meta-data/",
        "http://metadata.google.internal/",
        "//10.0.0.1/",
        "http://{name}:22/",
        "//{name}:6379/",
        "http://{name}:0/",
        "http://{name}:99999/",
        "http://{name}:port/",
        "file:///etc/passwd",
        "ftp://{name}/x",
        "gopher://{name}:{port}/_x",
        "data:text/plain,x",
        "javascript:alert(1)",
        "http://user@{name}:{port}/",
        "http://user:password@{name}:{port}/",
        "//user@{name}:{port}/",
        "http://{name}:{port}\\@127.0.0.3:{port}/",
        "\\\\127.0.0.3:{port}\\x",
        "/\\127.0.0.3:{port}/",
        "http://{name}:{port}/a b",
        "/a b",
        "http://{name}:{port}/%zz",
        "http://{name}:{port}/../x",
        "http://\uff11\uff12\uff17.0.0.3:{port}/",
        "http://{name}\u2100.example:{port}/",
        "http://{name}, http://{other}:{port}/",
        "http://" + "a" * 9000 + ".example/",
    ],
)
def test_a_redirect_that_is_not_followed(location: str, world: World) -> None:
    where = location.format(name=world.name, other=world.other, port=world.up.port).encode()
    world.up.serve("/start", like=told(where.decode("latin-1")))
    check_problem(world.get(world.url("/start")), 502, "redirect_refused")
    assert len(world.up.seen) == 1


@pytest.mark.parametrize("found", [[INSIDE], [PUBLIC, INSIDE], ["169.254.169.254"], []], ids=str)
def test_a_redirect_to_a_name_that_is_inside(found: list[str], world: World) -> None:
    world.names.serve(world.other, found)
    answer = world.get(world.url(told(f"http://{world.other}:{world.up.port}/")))
    check_problem(answer, 403, "address_refused")
    assert len(world.up.seen) == 1


def test_a_redirect_to_the_same_name_that_has_moved(world: World) -> None:
    world.names.serve(world.name, [PUBLIC], [INSIDE])
    answer = world.get(world.url(told("/there", close="")))
    check_problem(answer, 403, "address_refused")
    assert world.asked(world.name) == 2
    assert len(world.up.seen) == 1


@pytest.mark.parametrize("header", ["cr", "lf", "nul", "fold"])
def test_a_head_that_is_broken_beside_a_redirect(header: str, world: World) -> None:
    path = told(f"http://127.0.0.3:{world.up.port}/", bad_header=header)
    assert world.get(world.url(path)).status == 502


@pytest.mark.parametrize("text", ["/x\rLocation: http://127.0.0.3/", "/x\ny", "/x\x00"])
def test_a_location_with_a_break_in_it(text: str, world: World) -> None:
    assert world.get(world.url(told(text))).status in (404, 502)
    assert all(request.path in ("/file", "/x", "/xy") for request in world.up.seen)


def test_a_location_that_is_not_ascii(world: World) -> None:
    """UTF-8, as most servers send it."""
    answer = world.get(world.url(told("/ä?size=5".encode().decode("latin-1"))))
    assert answer.status == 200
    assert world.up.seen[-1].target == "/%C3%A4?size=5"


def test_redirects_without_an_end(world: World) -> None:
    check_problem(world.get(world.url("/loop")), 502, "redirect_refused")
    assert len(world.up.seen) == 6


@pytest.mark.parametrize(("count", "status"), [(5, 200), (6, 502), (50, 502)])
def test_a_chain_of_redirects(count: int, status: int, world: World) -> None:
    assert world.get(world.url(f"/chain?n={count}&size=5")).status == status
    assert len(world.up.seen) == 6


def test_every_hop_of_a_chain_is_decided(world: World) -> None:
    """The first two are public; the third one is not."""
    last = told(f"http://127.0.0.3:{world.up.port}/")
    middle = told(f"http://{world.other}:{world.up.port}{last}")
    check_problem(world.get(world.url(middle)), 502, "redirect_refused")
    assert len(world.up.seen) == 2


def test_head_is_decided_as_well(world: World) -> None:
    url = world.url(told(f"http://127.0.0.3:{world.up.port}/"))
    assert world.get(url, method="HEAD").status == 502
    assert [request.method for request in world.up.seen] == ["HEAD"]
