"""Types that only some servers have: extensions, and what a server may be built without."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from hypothesis import strategies as st

from tests.column_types import ColumnType
from tests.type_values import Texts, arrays_of, characters, quoted


@dataclass(frozen=True, slots=True)
class Optional:
    """``setup`` fails where the server has none of these ``types``."""

    setup: str
    types: tuple[ColumnType, ...]


def _extension(name: str, *types: ColumnType) -> Optional:
    return Optional(f"CREATE EXTENSION {name}", types)


def _with_arrays(spelled: str, texts: Texts) -> tuple[ColumnType, ColumnType]:
    cells = arrays_of(texts, shifted=False)
    return ColumnType(spelled, texts), ColumnType(f"{spelled}[]", cells)


WORDS = characters(6)
PAIRS = st.builds("{}=>{}".format, WORDS.map(quoted), WORDS.map(quoted) | st.just("NULL"))
HSTORES = st.lists(PAIRS, max_size=3).map(",".join)
# An empty object has no keys to gather.
OBJECT_AS_HSTORE = """
    (SELECT coalesce(hstore(array_agg(key), array_agg(value)), '') FROM json_each_text({value}))
"""
FLOATS = st.floats(-60_000, 60_000, width=16).map(repr)
VECTORS = st.tuples(FLOATS, FLOATS, FLOATS).map(lambda cells: f"[{','.join(cells)}]")
SPARSE = st.builds("{{1:{},4:{}}}/5".format, FLOATS, FLOATS)
LABELS = st.text("aZ_9", min_size=1, max_size=4)
NEAR = st.floats(-1e6, 1e6, allow_subnormal=False).map(repr)
ROUND = st.integers(-(10**8), 10**8).map(lambda count: f"{count / 1000}")
PLACES = st.builds("{} {}".format, ROUND, ROUND)
SHAPES = st.sampled_from(
    [
        "POINT({0})",
        "POINT Z({0} 5)",
        "LINESTRING({0},{1},{2})",
        "POLYGON(({0},{1},{2},{0}))",
        "MULTIPOINT(({0}),({1}))",
        "GEOMETRYCOLLECTION(POINT({0}),LINESTRING({1},{2}))",
    ]
)
GEOMETRIES = st.builds(str.format, SHAPES, PLACES, PLACES, PLACES)
FLAT = GEOMETRIES.filter(lambda text: " Z" not in text)
EARTHLY = st.builds("POINT({} {})".format, st.integers(-180, 180), st.integers(-90, 90))
ELEMENTS = st.sampled_from(
    ["<a/>", '<a b="1">\n&lt;</a>', "only text", "<a/><b/>", "", '<!-- , " -->', "<é/>"]
)
# Through text, since a geometry in memory may or may not hold the box around itself.
FROM_GEOJSON = "ST_GeomFromGeoJSON({value})::text::geometry"

OPTIONAL: Mapping[str, Optional] = {
    "xml": Optional("SELECT xml '<a/>'", _with_arrays("xml", ELEMENTS)),
    "hstore": _extension("hstore", ColumnType("hstore", HSTORES, from_json=OBJECT_AS_HSTORE)),
    "citext": _extension("citext", *_with_arrays("citext", WORDS)),
    "ltree": _extension(
        "ltree",
        *_with_arrays("ltree", st.lists(LABELS, max_size=4).map(".".join)),
        *_with_arrays("lquery", st.just("a.*{1,2}.!b|c@*")),
        *_with_arrays("ltxtquery", st.just("a & !b@*")),
    ),
    "cube": _extension("cube", ColumnType("cube", st.builds("({},{}),({},{})".format, *[NEAR] * 4))),
    "seg": _extension("seg", ColumnType("seg", st.sampled_from(["1.50", "1.5 .. 2.50", "<3", "1(+-)2"]))),
    "isn": _extension("isn", ColumnType("isbn", st.just("978-0-393-04002-9"))),
    "vector": _extension(
        "vector",
        *_with_arrays("vector(3)", VECTORS),
        *_with_arrays("halfvec(3)", VECTORS),
        *_with_arrays("sparsevec(5)", SPARSE),
    ),
    "postgis": _extension(
        "postgis",
        # GeoJSON without a system of coordinates is in that of GPS.
        ColumnType(
            "geometry",
            GEOMETRIES,
            from_json=FROM_GEOJSON,
            kept="ST_SetSRID({value}, 4326)::text::geometry",
        ),
        ColumnType(
            "geometry(Geometry, 3857)",
            FLAT.map("SRID=3857;{}".format),
            from_json=FROM_GEOJSON,
        ),
        ColumnType("geography", EARTHLY),
        ColumnType("box2d", st.builds("BOX({},{})".format, PLACES, PLACES)),
    ),
}  # fmt: skip
