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
        assembly, pipeline, producer, pipe
                                     joins the stages; reads the database in a task of its own
        survey                       what else is asked of the snapshot: totals, the next cursor
        lanes, copy, rows, batch     PostgreSQL's COPY; a cursor whose rows are made text
        iterate, held, items         so are the iterators of other applications (embedding)
        encode, compress, chunk      formats, codings, sizes (pure)
        receipt                      the proof of a stream (pure)
    catalog                  which datasets there are
    databases/               a folder for each kind: how it is read, compares, makes text
    database, embedded       Tailrace's own database; the PostgreSQL that it brings itself
    observe                  what happens, told once: log and metrics
    grammar/, texts          a query string → a SELECT (pure)
    representation, preferences
                             format negotiation, counts (pure)
    dataset, column, dialect, access, errors
                             the nouns that everything speaks of
    configuration, settings, values, toml_lines
                             tailrace.toml and environment → frozen settings
"""

__version__ = "0.1.0"
