"""Which fields a relay passes on, both ways, and for what it asks: nothing leaks."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from tests.clients import ask, send_raw
from tests.relaying import relayed
from tests.upstream import content
from tests.wire.problems import check_problem
from tests.wire.relays import SECRET, Relays, running_relays

CLIENTS_OWN = "s3cret-of-the-client-90c2"
WHOLE = content(1000)
Options = dict[str, Any]


@pytest.fixture(scope="module")
def running(module_database_url: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Relays]:
    with running_relays(tmp_path_factory.mktemp("served"), module_database_url) as found:
        yield found


@pytest.fixture
def relays(running: Relays) -> Relays:
    running.up.forget()
    running.elsewhere.forget()
    return running


class TestFields:
    """Of this connection, of this hop, and of nobody else."""

    def test_those_of_the_connection_stay_on_their_side(self, relays: Relays) -> None:
        asked = {
            "Connection": "keep-alive, X-Hop, If-Match",
            "X-Hop": "1",
            "If-Match": '"x"',
            "TE": "trailers",
            "Upgrade": "h2c",
            "Keep-Alive": "timeout=5",
            "Proxy-Authorization": f"Basic {CLIENTS_OWN}",
        }
        told = ["Connection:X-Back", "X-Back:1", "Keep-Alive:timeout=5", "Upgrade:h2c", "X-Kept:1"]
        found = relayed(relays.served, "plain", headers=asked, size=5, header=told)
        assert (found.status, found.body) == (200, WHOLE[:5])
        (seen,) = relays.up.seen
        assert not [name for name in asked if name != "Connection" and seen.header(name)]
        assert "X-Hop" not in (seen.header("Connection") or "")
        assert found.headers["X-Kept"] == "1"
        assert not [name for name in ("X-Back", "Keep-Alive", "Upgrade") if name in found.headers]

    def test_via_is_told_both_ways(self, relays: Relays) -> None:
        found = relayed(relays.served, "plain", size=5)
        assert relays.up.seen[0].header("Via") == "1.1 tailrace"
        assert found.headers["Via"] == "1.1 tailrace"

    def test_via_is_appended_to(self, relays: Relays) -> None:
        found = relayed(
            relays.served, "plain", headers={"Via": "1.0 first"}, size=5, header="Via:1.1 behind"
        )
        assert relays.up.seen[0].header("Via") == "1.0 first, 1.1 tailrace"
        assert found.headers["Via"] == "1.1 behind, 1.1 tailrace"

    def test_the_upstream_does_not_learn_who_asks(self, relays: Relays) -> None:
        asked = {
            "Authorization": f"Bearer {CLIENTS_OWN}",
            "Cookie": f"session={CLIENTS_OWN}",
            "X-Forwarded-For": "10.0.0.1",
            "Referer": f"https://x/{CLIENTS_OWN}",
            "User-Agent": CLIENTS_OWN,
            "X-Tenant": CLIENTS_OWN,
            "X-Request-Id": "of-this-request",
        }
        assert relayed(relays.served, "plain", headers=asked, size=5).status == 200
        (seen,) = relays.up.seen
        assert CLIENTS_OWN.encode() not in seen.raw
        assert b"10.0.0.1" not in seen.raw
        assert seen.header("Host") == f"127.0.0.1:{relays.up.port}"

    def test_what_is_to_be_forwarded_is(self, relays: Relays) -> None:
        asked = {"Authorization": "Bearer x", "X-Tenant": "7", "Cookie": "a=b"}
        assert relayed(relays.served, "forwarding", headers=asked, size=5).status == 200
        (seen,) = relays.up.seen
        assert (seen.header("Authorization"), seen.header("X-Tenant")) == ("Bearer x", "7")
        assert seen.header("Cookie") is None

    def test_cookies_neither_come_back_nor_stick(self, relays: Relays) -> None:
        cookies = ["Set-Cookie:session=of-one-caller; Path=/", "Set-Cookie2:a=b"]
        found = relayed(relays.served, "plain", size=5, header=cookies)
        assert not {"Set-Cookie", "Set-Cookie2"}.intersection(found.headers)
        assert relayed(relays.served, "plain", size=5).status == 200
        assert relays.up.seen[1].header("Cookie") is None

    def test_what_would_act_on_our_origin_does_not_come_back(self, relays: Relays) -> None:
        told = [
            "Access-Control-Allow-Origin:*",
            "Strict-Transport-Security:max-age=9",
            "Clear-Site-Data:*",
            "Content-Security-Policy:default-src *",
            "X-Accel-Redirect:/etc/passwd",
            "Refresh:0;url=http://x/",
            "WWW-Authenticate:Basic",
            "Location:http://127.0.0.1/",
            "X-Content-Type-Options:sniff",
        ]
        found = relayed(relays.served, "plain", size=5, type="text/html", header=told)
        assert found.headers.get_all("X-Content-Type-Options") == ["nosniff"]
        assert found.headers.get_all("Content-Security-Policy") == ["sandbox; default-src 'none'"]
        own = {"X-Content-Type-Options", "Content-Security-Policy"}
        kept_back = {text.partition(":")[0] for text in told} - own
        assert not kept_back.intersection(found.headers)

    def test_the_bytes_of_a_field_pass(self, relays: Relays) -> None:
        """Not all of them are ASCII, or text at all."""
        told = ["X-Title:\xe2\x98\x83", "X-Latin:gr\xf6\xdfe"]  # as bytes; the first is UTF-8
        found = relayed(relays.served, "plain", size=5, header=told)
        assert (found.headers["X-Title"], found.headers["X-Latin"]) == (
            "\xe2\x98\x83",
            "gr\xf6\xdfe",
        )


class TestSecrets:
    """What the configuration has an upstream told is told to nobody else."""

    def test_the_upstream_gets_them(self, relays: Relays) -> None:
        asked = {"Authorization": f"Bearer {CLIENTS_OWN}", "X-Key": "mine", "X-Tenant": "7"}
        assert relayed(relays.served, "secret", headers=asked, size=5).status == 200
        (seen,) = relays.up.seen
        assert seen.values("Authorization") == [f"Bearer {SECRET}"]
        assert seen.values("X-Key") == [SECRET]
        assert seen.values("X-Tenant") == ["7"]

    def test_a_redirect_elsewhere_does_not(self, relays: Relays) -> None:
        location = f"{relays.elsewhere.base}/file?size=7"
        asked = {"Accept": "text/csv", "X-Tenant": "7"}
        found = relayed(relays.served, "secret", headers=asked, redirect=location)
        assert (found.status, found.body) == (200, WHOLE[:7])
        (first,) = relays.up.seen
        (seen,) = relays.elsewhere.seen
        assert SECRET.encode() in first.raw
        assert SECRET.encode() not in seen.raw
        assert seen.header("X-Tenant") is None
        assert seen.header("Accept") == "text/csv"
        assert seen.header("Host") == f"127.0.0.1:{relays.elsewhere.port}"

    def test_nor_does_a_redirect_back_from_there(self, relays: Relays) -> None:
        back = f"{relays.elsewhere.base}/file?redirect={relays.up.base}/back"
        assert relayed(relays.served, "secret", redirect=back).status == 200
        assert [seen.path for seen in relays.up.seen] == ["/file", "/back"]
        assert SECRET.encode() not in relays.up.seen[1].raw

    def test_a_redirect_within_the_upstream_does(self, relays: Relays) -> None:
        found = relayed(relays.served, "secret", "/chain", n=3, size=7)
        assert (found.status, found.body) == (200, WHOLE[:7])
        assert [SECRET.encode() in seen.raw for seen in relays.up.seen] == [True] * 4

    def test_they_are_told_nowhere_else(self, relays: Relays) -> None:
        served = relays.served
        found = relayed(served, "secret", size=5)
        failed = relayed(served, "away")
        refused = relayed(served, "secret", redirect=f"{relays.up.base}@evil.example/")
        check_problem(failed, 502, "upstream_unavailable")
        check_problem(refused, 502, "redirect_refused")
        export = f"/v1/exports/{found.export_id}"
        paths = [export, f"{export}/receipt", "/v1/exports", "/v1/upstreams", "/v1/status"]
        told = [ask(served.base, path).body for path in (*paths, "/metrics", "/openapi.json")]
        files = [served.log.read_bytes(), served.output.read_bytes()]
        answers = [str(each.headers).encode() + each.body for each in (found, failed, refused)]
        for text in (*told, *files, *answers):
            assert SECRET.encode() not in text
            assert CLIENTS_OWN.encode() not in text

    def test_nor_are_addresses(self, relays: Relays) -> None:
        told = [ask(relays.served.base, "/v1/upstreams"), relayed(relays.served, "away")]
        assert not [
            each
            for each in told
            if b"127.0.0.1:" in each.body.replace(relays.served.base.encode(), b"")
        ]

    def test_no_proxy_of_the_environment_is_asked(self, relays: Relays) -> None:
        assert relayed(relays.served, "plain", size=5).status == 200
        assert relays.proxy.hits == 0


class TestTarget:
    """What is asked for is what the client has spelt, and nothing beside it."""

    @pytest.mark.parametrize(
        ("sent", "expected"),
        [
            ("a%2Fb/c%2f", "a%2Fb/c%2f"),
            ("gr%C3%B6%c3%9fe", "gr%C3%B6%c3%9fe"),
            ("gr%F6%DFe", "gr%F6%DFe"),
            ("~%7Ea;v=1,2!$'()*+:@=&", "~%7Ea;v=1,2!$'()*+:@=&"),
            ("a//b/", "a//b/"),
            ("a%3Fb%23c", "a%3Fb%23c"),
            ("a?size=5", "a?size=5"),
            ("a?size=5&chunk_size=4096&lines=0&type=%7E~%41", "a?size=5&type=%7E~%41"),
            ("a?lines=0&size=5&key=b&seed=1&key=a+b&key=%2B", "a?size=5&key=b&seed=1&key=a+b&key=%2B"),
            ("a?ch%75nk_size=4096&size=5", "a?size=5"),
            ("a?size=5&&key=c&", "a?size=5&&key=c&"),
            ("a?key=!$'()*+,;:@/?-._~=[]{}|^`", "a?key=!$'()*+,;:@/?-._~=[]{}|^`"),
            ("a?key=%C3%B6%ff%00%0d%0a", "a?key=%C3%B6%ff%00%0d%0a"),
            # What is no part of a URL (RFC 3986), as bytes that are.
            ('a?key="<>\\', "a?key=%22%3C%3E\\"),
        ],
    )  # fmt: skip
    def test_it_goes_on_as_it_was_spelt(self, relays: Relays, sent: str, expected: str) -> None:
        head = f"GET /v1/relay/plain/{sent} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
        answer = send_raw(relays.served.base, head.encode("latin-1"))
        assert answer.status == 200, answer.body
        assert [seen.target for seen in relays.up.seen] == [f"/{expected}"]

    @pytest.mark.parametrize(
        "path",
        [
            *(
                "../x",
                "a/../b",
                "%2e%2e/x",
                "..%2fx",
                "%252e%252e/x",
                "..;/x",
                "a/..;v=1/x",
                ".%2e",
            ),
            *("/x", "//127.0.0.1/x", "a%5Cb", "a%00", "a%0d%0aX:%20y", "..%5c..%5cx", "./x"),
        ],
    )
    def test_a_way_out_is_not_there(self, relays: Relays, path: str) -> None:
        head = f"GET /v1/relay/plain/{path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
        check_problem(send_raw(relays.served.base, head.encode()), 404, "not_found")
        assert relays.up.seen == []

    @pytest.mark.parametrize("path", ["/daily/a", "/d%61ily/a", "/a%20b/c", "/daily/"])
    def test_below_the_prefixes(self, relays: Relays, path: str) -> None:
        assert relayed(relays.served, "daily", path, size=5).status == 200
        assert [seen.target for seen in relays.up.seen] == [f"/below{path}?size=5"]

    @pytest.mark.parametrize(
        "path", ["/", "/daily", "/weekly/a", "/daily%2Fa", "/a b/c", "/daily/../weekly/a"]
    )
    def test_beside_the_prefixes(self, relays: Relays, path: str) -> None:
        path = path.replace(" ", "+")
        check_problem(relayed(relays.served, "daily", path), 404, "not_found")
        assert relays.up.seen == []

    @pytest.mark.parametrize(
        ("upstream", "method", "status"),
        [
            ("getting", "GET", 200),
            ("getting", "HEAD", 403),
            ("heading", "HEAD", 200),
            ("heading", "GET", 403),
            ("plain", "POST", 405),
            ("plain", "DELETE", 405),
            ("nothing", "GET", 404),
            ("", "GET", 404),
        ],
    )
    def test_methods(self, relays: Relays, upstream: str, method: str, status: int) -> None:
        assert relayed(relays.served, upstream, method=method, size=5).status == status
        assert len(relays.up.seen) == (status == 200)

    def test_free_addresses_are_off(self, relays: Relays) -> None:
        found = ask(relays.served.base, f"/v1/relay?url={relays.up.base}/file")
        check_problem(found, 403, "forbidden")
        assert "allow_urls" in found.json()["detail"]
        assert relays.up.connections == []

    def test_upstreams_are_listed(self, relays: Relays) -> None:
        listed = relays.served.get("/v1/upstreams")
        assert listed["free"] is False
        named = {each["name"]: each for each in listed["upstreams"]}
        assert named["daily"]["paths"] == ["daily/", "a%20b/"]
        assert named["getting"]["methods"] == ["GET"]
        link = f"{relays.served.base}/v1/relay/plain/"
        assert named["plain"]["links"] == {"relay": link}
