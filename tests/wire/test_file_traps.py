"""Hostile paths as they stand in request lines: nothing but the root's own files comes out."""

from __future__ import annotations

import http.client
from collections.abc import Iterator
from contextlib import closing
from urllib.parse import unquote

import pytest

from tests.paths import ATTACKS, Attack, Tree, build_tree
from tests.peer import Peer, connected
from tests.serving import Served
from tests.wire.shared_files import sharing

LONGEST = 4000  # bytes of a path that may be there


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Tree:
    return build_tree(tmp_path_factory.mktemp("tree"))


@pytest.fixture(scope="module")
def served(
    module_database_url: str, tmp_path_factory: pytest.TempPathFactory, tree: Tree
) -> Iterator[Served]:
    with sharing(tmp_path_factory.mktemp("served"), module_database_url, tree.root) as found:
        yield found


def answer(peer: Peer, method: str, raw: str, *fields: str) -> tuple[int, bytes]:
    """Status and body of one request, whose connection stays."""
    lines = (f"{method} /v1/files/files/{raw} HTTP/1.1", f"Host: {peer.host}", *fields, "", "")
    peer.socket.sendall("\r\n".join(lines).encode())
    with closing(http.client.HTTPResponse(peer.socket, method=method)) as response:
        response.begin()
        return response.status, response.read()


def is_folder(tree: Tree, raw: str) -> bool:
    """Whether it is just another spelling of a folder that may be listed."""
    path = unquote(raw)
    names = path.removesuffix("/").split("/")
    plain = path.endswith("/") and not any(name.startswith(".") or not name for name in names)
    if not plain or len(path) > LONGEST or "\0" in path:
        return False
    folder = tree.root.joinpath(*names)
    return folder.is_dir() and folder.resolve() == folder


def wrong(tree: Tree, attack: Attack, status: int, body: bytes) -> bool:
    if tree.marker in body or b"root:" in body:
        return True
    if attack.good is not None:
        return (status, body) != (200, tree.files[attack.good])
    return status != (200 if is_folder(tree, attack.raw) else 404)


@pytest.mark.parametrize("fields", [(), ("Range: bytes=0-",), ("Accept-Encoding: gzip, zstd",)])
def test_no_path_leaves_the_root(served: Served, tree: Tree, fields: tuple[str, ...]) -> None:
    found: dict[str, object] = {}
    with connected(served.base) as peer:
        for attack in ATTACKS:
            if attack.trap in tree.unlaid or not is_a_target(attack.raw):
                continue
            status, body = answer(peer, "GET", attack.raw, *fields)
            status = 200 if status == 206 else status
            if wrong(tree, attack, status, body):
                found[attack.raw[:100]] = (status, body[:200])
    assert found == {}
    assert len(ATTACKS) > 300


def is_a_target(raw: str) -> bool:
    """Whether it may stand in a request line (RFC 9112, section 3.2)."""
    return raw.isascii() and not any(character <= " " or character in "?#" for character in raw)


def test_a_head_tells_no_more(served: Served, tree: Tree) -> None:
    with connected(served.base) as peer:
        for attack in ATTACKS:
            if is_a_target(attack.raw) and attack.trap not in tree.unlaid:
                status, body = answer(peer, "HEAD", attack.raw)
                there = attack.good is not None or is_folder(tree, attack.raw)
                assert (status, body) == (200 if there else 404, b""), attack.raw[:100]


def test_what_is_no_request_line_comes_to_nothing(served: Served, tree: Tree) -> None:
    for attack in ATTACKS:
        if is_a_target(attack.raw):
            continue
        with connected(served.base) as peer:
            line = f"GET /v1/files/files/{attack.raw} HTTP/1.1\r\nHost: {peer.host}\r\n"
            peer.socket.sendall(
                line.encode(errors="surrogateescape") + b"Connection: close\r\n\r\n"
            )
            assert tree.marker not in peer.read_all()


def test_every_failure_looks_the_same(served: Served, tree: Tree) -> None:
    """What is there and may not be read is not told from what is not there."""
    seen = set()
    with connected(served.base) as peer:
        for raw in ("nothing", "link-file", "link-device", ".hidden", ".git/config", "pipe", "sub"):
            status, body = answer(peer, "GET", raw)
            seen.add((status, body[: body.index(b"request_id")]))
        peer.ask("/v1/files/unknown/readme.txt")
        with closing(http.client.HTTPResponse(peer.socket)) as response:
            response.begin()
            body = response.read()
            seen.add((response.status, body[: body.index(b"request_id")]))
    assert len(seen) == 1
