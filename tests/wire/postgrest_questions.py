"""Questions that both clients of PostgREST ask of one table."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from postgrest import SyncSelectRequestBuilder

TABLE = """
    create table people (
        id int primary key, name text, city text, age int, active bool, born date, "odd, one" int
    );
    insert into people values
        (1, 'Ada', 'Paris', 36, true, '1815-12-10', 1),
        (2, 'bob', 'London', 17, false, '2008-01-01', 2),
        (3, 'Cy, the 3rd', 'Paris', null, null, null, null),
        (4, 'd(e)', 'Oslo', 52, true, '1974-05-17', null),
        (5, 'quo"te', null, 36, false, '1990-02-28', null),
        (6, '100% a*b', 'London', 70, true, null, null),
        (7, 'näme', 'Oslo', null, false, '1980-01-01', null),
        (8, 'ADA', 'Paris', 5, null, '2021-07-07', 8);
"""
EVERYBODY = list(range(1, 9))
CONFIG = '[sources.main]\nexpose = ["public.*"]'

Build = Callable[[SyncSelectRequestBuilder], Any]
Step = tuple[Any, ...]


@dataclass(frozen=True)
class Case:
    """The same question for both clients, and the ids that answer it, in their order."""

    python: Build
    javascript: list[Step]
    ids: list[int]


CASES = {
    "eq": Case(lambda rows: rows.eq("name", "Ada"), [("eq", "name", "Ada")], [1]),
    "eq with a comma": Case(
        lambda rows: rows.eq("name", "Cy, the 3rd"), [("eq", "name", "Cy, the 3rd")], [3]
    ),
    "eq with a quote": Case(
        lambda rows: rows.eq("name", 'quo"te'), [("eq", "name", 'quo"te')], [5]
    ),
    "eq beyond ASCII": Case(lambda rows: rows.eq("name", "näme"), [("eq", "name", "näme")], [7]),
    "eq with a percent sign": Case(
        lambda rows: rows.eq("name", "100% a*b"), [("eq", "name", "100% a*b")], [6]
    ),
    "eq of a boolean": Case(
        lambda rows: rows.eq("active", True), [("eq", "active", True)], [1, 4, 6]
    ),
    "neq": Case(lambda rows: rows.neq("city", "Paris"), [("neq", "city", "Paris")], [2, 4, 6, 7]),
    "gt": Case(lambda rows: rows.gt("age", 36), [("gt", "age", 36)], [4, 6]),
    "gte": Case(lambda rows: rows.gte("age", 36), [("gte", "age", 36)], [1, 4, 5, 6]),
    "lt": Case(lambda rows: rows.lt("age", 17), [("lt", "age", 17)], [8]),
    "lte": Case(lambda rows: rows.lte("age", 17), [("lte", "age", 17)], [2, 8]),
    "a range of dates": Case(
        lambda rows: rows.gte("born", "1980-01-01").lt("born", "2000-01-01"),
        [("gte", "born", "1980-01-01"), ("lt", "born", "2000-01-01")],
        [5, 7],
    ),
    "in": Case(lambda rows: rows.in_("id", [2, 4, 99]), [("in", "id", [2, 4, 99])], [2, 4]),
    "in with what must be quoted": Case(
        lambda rows: rows.in_("name", ["Cy, the 3rd", "d(e)", "näme"]),
        [("in", "name", ["Cy, the 3rd", "d(e)", "näme"])],
        [3, 4, 7],
    ),
    "in with a quote inside": Case(
        lambda rows: rows.in_("name", ['quo"te', "bob"]),
        [("in", "name", ['quo"te', "bob"])],
        [2, 5],
    ),
    "in of nothing": Case(lambda rows: rows.in_("id", []), [("in", "id", [])], []),
    "not in": Case(
        lambda rows: rows.not_.in_("id", [1, 2, 3]),
        [("notIn", "id", [1, 2, 3])],
        [4, 5, 6, 7, 8],
    ),
    "is null": Case(lambda rows: rows.is_("age", None), [("is", "age", None)], [3, 7]),
    "is true": Case(lambda rows: rows.is_("active", True), [("is", "active", True)], [1, 4, 6]),
    "is false": Case(lambda rows: rows.is_("active", False), [("is", "active", False)], [2, 5, 7]),
    "is not null": Case(
        lambda rows: rows.not_.is_("active", None),
        [("not", "active", "is", None)],
        [1, 2, 4, 5, 6, 7],
    ),
    "like": Case(lambda rows: rows.like("name", "A%"), [("like", "name", "A%")], [1, 8]),
    "like with a star": Case(lambda rows: rows.like("name", "*(*"), [("like", "name", "*(*")], [4]),
    "like a comma": Case(
        lambda rows: rows.like("name", "%, the%"), [("like", "name", "%, the%")], [3]
    ),
    "ilike": Case(lambda rows: rows.ilike("name", "ada"), [("ilike", "name", "ada")], [1, 8]),
    "match": Case(
        lambda rows: rows.filter("name", "match", "^[A-Z]d"),
        [("regexMatch", "name", "^[A-Z]d")],
        [1],
    ),
    "imatch": Case(
        lambda rows: rows.filter("name", "imatch", "^(ad|bo)"),
        [("regexIMatch", "name", "^(ad|bo)")],
        [1, 2, 8],
    ),
    "isDistinct": Case(
        lambda rows: rows.filter("age", "isdistinct", "36"),
        [("isDistinct", "age", 36)],
        [2, 3, 4, 6, 7, 8],
    ),
    "not eq": Case(
        lambda rows: rows.not_.eq("city", "Paris"), [("not", "city", "eq", "Paris")], [2, 4, 6, 7]
    ),
    "not like": Case(
        lambda rows: rows.not_.like("name", "%a%"),
        [("not", "name", "like", "%a%")],
        [2, 3, 4, 5, 7, 8],
    ),
    "pairs that are equal": Case(
        lambda rows: rows.match({"city": "Paris", "age": 36}),
        [("match", {"city": "Paris", "age": 36})],
        [1],
    ),
    "or": Case(
        lambda rows: rows.or_("age.lt.10,city.eq.Oslo"),
        [("or", "age.lt.10,city.eq.Oslo")],
        [4, 7, 8],
    ),
    "or with what is quoted": Case(
        lambda rows: rows.or_('name.eq."Cy, the 3rd",name.eq."d(e)",name.eq."quo\\"te"'),
        [("or", 'name.eq."Cy, the 3rd",name.eq."d(e)",name.eq."quo\\"te"')],
        [3, 4, 5],
    ),
    "or with nesting": Case(
        lambda rows: rows.or_("id.eq.2,and(city.eq.Paris,or(age.is.null,not.and(id.gt.1)))"),
        [("or", "id.eq.2,and(city.eq.Paris,or(age.is.null,not.and(id.gt.1)))")],
        [1, 2, 3],
    ),
    "or beside another filter": Case(
        lambda rows: rows.or_("id.in.(1,2,3),age.gt.60").not_.is_("active", True),
        [("or", "id.in.(1,2,3),age.gt.60"), ("not", "active", "is", True)],
        [2, 3],
    ),
    "two ors": Case(
        lambda rows: rows.or_("id.lt.4,id.gt.7").or_("city.eq.London,age.lt.10"),
        [("or", "id.lt.4,id.gt.7"), ("or", "city.eq.London,age.lt.10")],
        [2, 8],
    ),
    "a column with a comma in its name": Case(
        lambda rows: rows.gt("odd, one", 1), [("gt", '"odd, one"', 1)], [2, 8]
    ),
}
ORDERS = {
    "descending": Case(
        lambda rows: rows.order("id", desc=True),
        [("order", "id", {"ascending": False})],
        EVERYBODY[::-1],
    ),
    "two columns": Case(
        lambda rows: rows.order("city", nullsfirst=True).order("id", desc=True),
        [("order", "city", {"nullsFirst": True}), ("order", "id", {"ascending": False})],
        [5, 6, 2, 7, 4, 8, 3, 1],
    ),
    "nulls last": Case(
        lambda rows: rows.order("age", desc=True, nullsfirst=False).order("id"),
        [("order", "age", {"ascending": False, "nullsFirst": False}), ("order", "id")],
        [6, 4, 1, 5, 2, 8, 3, 7],
    ),
    "nulls first": Case(
        lambda rows: rows.order("age", nullsfirst=True).order("id"),
        [("order", "age", {"nullsFirst": True}), ("order", "id")],
        [3, 7, 8, 2, 1, 5, 4, 6],
    ),
    "limit": Case(
        lambda rows: rows.order("id").limit(3), [("order", "id"), ("limit", 3)], [1, 2, 3]
    ),
    "range": Case(
        lambda rows: rows.order("id").range(2, 4), [("order", "id"), ("range", 2, 4)], [3, 4, 5]
    ),
    "a range beyond the end": Case(
        lambda rows: rows.order("id").range(7, 20), [("order", "id"), ("range", 7, 20)], [8]
    ),
}
