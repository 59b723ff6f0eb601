"""URLs of MariaDB and MySQL: what is taken, what is refused, and what is shown of them."""

from __future__ import annotations

import pytest

from service.values import masked_url, source_url

SECRET = "s3cret"
OURS = f"mysql+aiomysql://reader:{SECRET}@db:3306/facts"


@pytest.mark.parametrize(
    "scheme", ["mysql", "mariadb", "mysql+aiomysql", "mariadb+aiomysql", "MariaDB"]
)
def test_every_spelling_is_one_driver(scheme: str) -> None:
    assert source_url(f" {scheme}://reader:{SECRET}@db:3306/facts\n") == OURS


@pytest.mark.parametrize(
    ("url", "message"),
    [
        (f"mysql+pymysql://reader:{SECRET}@db/facts", "names another driver"),
        (f"mysql://reader:{SECRET}@db", "names no database"),
        (f"mysql://reader:{SECRET}@db/facts?charset=latin1", "parameters that are not known: charset"),
        (f"mysql://reader:{SECRET}@db/facts?init_command=x", "not known: init_command"),
        (f"mysql://reader:{SECRET}@db/facts?ssl=false", "another way than ssl=true"),
        (f"mysql://reader:{SECRET}@db:port/facts", "is not a URL"),
    ],
)  # fmt: skip
def test_a_wrong_one_is_refused_without_its_password(url: str, message: str) -> None:
    with pytest.raises(ValueError, match=message) as caught:
        source_url(url)
    assert SECRET not in str(caught.value)


def test_what_is_shown_has_no_password() -> None:
    url = source_url(f"mariadb://reader:{SECRET}@/facts?unix_socket=/run/db.sock&ssl_ca=/ca.pem")
    assert masked_url(url) == "mysql://reader:***@/facts?unix_socket=%2Frun%2Fdb.sock"
    assert masked_url(OURS) == "mysql://reader:***@db:3306/facts"
