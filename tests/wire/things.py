"""A table with a column of every kind, for questions that are wrong."""

from __future__ import annotations

EXPOSED = '[sources.main]\nexpose = ["public.*"]'
TABLE = """
    create type mood as enum ('glad', 'sad');
    create table things (
        id bigint primary key, small smallint, amount numeric, ratio float8, name text, ok bool,
        uid uuid, at timestamptz, day date, span interval, doc jsonb, raw json, bytes bytea,
        tags int[], mood mood, net inet, "Größe/50%" int
    );
    insert into things
    select i, i, i / 3.0, sqrt(i), 'näme ' || i, i % 2 = 0, gen_random_uuid(), now(), now(),
           make_interval(days => i), jsonb_build_object('i', i), '{"a":  1}', 'x', array[i, 2],
           'glad', '10.0.0.1', i
    from generate_series(1, 20) i;
"""
