"""Tailrace: large exports over HTTP that are fast, watchable and provably complete.

The code map; a request flows downward::

    request → query → lane → frame → compress → chunk → response
                        └→ records, receipts, log, metrics

    cli, server, demo        the commands, the server process, the demonstration's data
    app, runtime             wiring; what the routes share
    api/, web/               one thin router a resource; pages
    streaming                the one response that every stream uses
    jobs/                    records of exports: model (pure), store, direct streams
    export/                  a SELECT becomes bytes
        pipeline, producer, pipe     joins the stages; reads the database in a task of its own
        copy, projection, literals   PostgreSQL builds the bytes, COPY carries them
        rows, batch                  a cursor brings rows, Python makes the text
        iterate, held, items         so do the iterators of other applications (embedding)
        encode, compress, chunk      formats, codings, sizes (pure)
        receipt                      the proof of a stream (pure)
    catalog, reflection      which datasets there are
    database, embedded       engines and snapshots; the PostgreSQL that Tailrace brings itself
    observe                  what happens, told once: log and metrics
    query, selection, filters, logic, ordering, cursor, keyset
                             the read grammar → a SELECT (pure)
    names, scanner, texts    its column names, its characters, its values in SQL (pure)
    representation           format negotiation (pure)
    dataset, access, errors  the nouns that everything speaks of
    configuration, settings, values, toml_lines
                             tailrace.toml and environment → frozen settings
"""

__version__ = "0.1.0"
