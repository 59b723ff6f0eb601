"""Free relays from outside: no spelling of an address leads inside, nor does the environment."""

from __future__ import annotations

import http.client
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote, urlsplit

import pytest

from tests.addresses import GOOD_URLS, REFUSED_URLS
from tests.clients import Answer, ask
from tests.names import Names
from tests.relaying import relayed
from tests.serving import Served, without_worker
from tests.threaded import threaded
from tests.upstream import Canary, Upstream, canary, content, upstream
from tests.wire.problems import check_problem

SECONDS = 20.0  # for one answer, which nothing that is refused should need
CONNECTIONS = 4
PROXIES = ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "FTP_PROXY")
PORTS = (80, 443, 8443)
STATUSES = {"refused": 403, "invalid": 400}
CODES = {403: "address_refused", 400: "invalid_parameter"}
NOWHERE = "http://nowhere.invalid/"  # RFC 6761, section 6.4


@dataclass(frozen=True, slots=True)
class Watched:
    """A service that takes free addresses, one that nobody may reach, and its upstream."""

    served: Served
    inside: Canary
    proxy: Canary
    up: Upstream

    def urls(self) -> list[tuple[str, int]]:
        """The corpus, and the status of each answer."""
        port = str(self.inside.port)
        return [(url.replace("{port}", port), STATUSES[verdict]) for url, verdict in REFUSED_URLS]


@contextmanager
def proxied(proxy: Canary, folder: Path) -> Iterator[None]:
    """An environment that would lead every client through ``proxy``, with a password for all."""
    netrc = folder / "netrc"
    netrc.write_text("machine 127.0.0.1 login some password secret\ndefault login a password b\n")
    netrc.chmod(0o600)
    with pytest.MonkeyPatch.context() as patch:
        for name in PROXIES:
            patch.setenv(name, f"http://127.0.0.1:{proxy.port}")
            patch.delenv(name.lower(), raising=False)
        patch.setenv("NO_PROXY", "example.com")
        patch.delenv("no_proxy", raising=False)
        patch.setenv("NETRC", str(netrc))
        # The tests' own client is not what is tested.
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        patch.setattr(urllib.request, "_opener", opener)
        yield


@pytest.fixture(scope="module")
def watched(
    tmp_path_factory: pytest.TempPathFactory, module_database_url: str
) -> Iterator[Watched]:
    folder = tmp_path_factory.mktemp("free")
    with ExitStack() as stack:
        inside, proxy = stack.enter_context(canary()), stack.enter_context(canary())
        up = stack.enter_context(upstream())
        stack.enter_context(proxied(proxy, folder))
        ports = [*PORTS, inside.port, up.port]
        config = f"""
            [relay]
            allow_urls = true
            ports = {ports}
            [upstreams.up]
            base_url = "{up.base}"
        """
        served = stack.enter_context(without_worker(folder, module_database_url, config=config))
        yield Watched(served, inside, proxy, up)


def free(url: str) -> str:
    return f"/v1/relay?url={quote(url, safe='')}"


def answers(base: str, targets: list[str], method: str) -> list[Answer]:
    """All of them on one connection, which none may break."""
    with closing(http.client.HTTPConnection(urlsplit(base).netloc, timeout=SECONDS)) as kept:
        return [_answered(kept, method, each) for each in targets]


def _answered(kept: http.client.HTTPConnection, method: str, path: str) -> Answer:
    kept.request(method, path)
    response = kept.getresponse()
    answer = Answer(response.status, response.headers, response.read())
    assert not response.will_close, path[:200]
    return answer


@pytest.mark.parametrize("method", ["GET", "HEAD"])
def test_no_spelling_leads_inside(method: str, watched: Watched) -> None:
    corpus = watched.urls()
    assert len(corpus) >= 300
    shares = [corpus[start::CONNECTIONS] for start in range(CONNECTIONS)]
    before = watched.inside.hits
    with ThreadPoolExecutor(CONNECTIONS) as pool:
        work = [
            pool.submit(answers, watched.served.base, [free(url) for url, _ in share], method)
            for share in shares
        ]
        found = [task.result() for task in work]
    for share, got in zip(shares, found, strict=True):
        for (url, status), answer in zip(share, got, strict=True):
            assert answer.status == status, url[:200]
            if method == "GET":
                check_problem(answer, status, CODES[status])
    assert watched.inside.hits == before == 0
    assert watched.up.connections == []


def test_what_is_refused_is_told_as_it_was_asked_for_and_never_as_a_crash(
    watched: Watched,
) -> None:
    answer = ask(watched.served.base, free("http://2130706433/"))
    check_problem(answer, 403, "address_refused")
    assert "127.0.0.1" in answer.json()["detail"]
    assert watched.served.events("crash") == []
    assert "Traceback" not in watched.served.log.read_text()


@pytest.mark.parametrize(
    ("query", "status"),
    [
        ("", 400),
        ("?", 400),
        ("?url", 400),
        ("?url=", 400),
        ("?url=http://127.0.0.1/&url=http://example.invalid/", 400),
        ("?url=http://nowhere.invalid/?a=1&b=2", 400),
        ("?url=http%3a%2f%2f127.0.0.1%2f", 403),
        ("?url=http%253a%252f%252f127.0.0.1%252f", 400),
        ("?url=http://127.0.0.1+/", 400),
        ("?url=%ff", 400),
        ("?url=http://nowhere.invalid/%ED%A0%80", 400),
        ("?URL=http://127.0.0.1/", 400),
        ("?url=http://127.0.0.1/&chunk_size=0", 400),
        ("?url=http://127.0.0.1/%26chunk_size=4096", 403),
        ("?chunk_size=1&url=http://127.0.0.1/", 400),
        ("?url[]=http://127.0.0.1/", 400),
    ],
)
def test_the_parameter_itself(query: str, status: int, watched: Watched) -> None:
    answer = ask(watched.served.base, f"/v1/relay{query}")
    assert answer.status == status
    assert answer.headers["Content-Type"] == "application/problem+json"


@pytest.mark.parametrize(
    "url", ["http://u@nowhere.invalid/", "http://u:p@nowhere.invalid/", "http://:@nowhere.invalid/"]
)
def test_credentials_are_refused(url: str, watched: Watched) -> None:
    check_problem(ask(watched.served.base, free(url)), 400, "invalid_parameter")


@pytest.mark.parametrize("port", [1, 22, 25, 81, 8080, 65_535])
def test_other_ports_are_refused(port: int, watched: Watched) -> None:
    answer = ask(watched.served.base, free(f"http://nowhere.invalid:{port}/"))
    check_problem(answer, 403, "address_refused")
    assert str(port) in answer.json()["detail"]


@pytest.mark.parametrize("url", [NOWHERE, "https://nowhere.invalid/", "http://bücher.invalid/x#y"])
def test_a_name_that_does_not_exist(url: str, watched: Watched) -> None:
    check_problem(ask(watched.served.base, free(url)), 502, "upstream_unavailable")


def test_good_urls_are_no_mistakes(watched: Watched) -> None:
    """Whatever becomes of them where these tests run; on loopback there is nobody either way."""
    urls = [url for url, _, port, _ in GOOD_URLS if port in PORTS and "[" not in url]
    names = [url for url in urls if ".invalid" in url or ".example/" in url]
    assert len(names) > 5
    for answer in answers(watched.served.base, [free(url) for url in names], "GET"):
        assert answer.status == 502
    assert watched.inside.hits == 0


def test_no_proxy_and_no_password_of_the_environment_is_used(watched: Watched) -> None:
    assert ask(watched.served.base, free(NOWHERE)).status == 502
    answer = relayed(watched.served, "up", size=1000)
    assert (answer.status, answer.body) == (200, content(1000))
    (request,) = watched.up.seen
    assert request.target == "/file?size=1000"
    assert request.header("Authorization") is None
    assert request.header("Proxy-Authorization") is None
    assert watched.proxy.hits == 0


def test_off_by_default(tmp_path: Path, module_database_url: str) -> None:
    names = Names()
    with canary() as inside, threaded(tmp_path, module_database_url, names) as base:
        for url in (f"http://127.0.0.1:{inside.port}/", NOWHERE, "", "http://"):
            answer = ask(base, free(url))
            check_problem(answer, 403, "forbidden")
            assert "relay.allow_urls" in answer.json()["detail"]
        assert ask(base, "/v1/upstreams").json()["free"] is False
        assert inside.hits == 0
    assert names.asked == []
