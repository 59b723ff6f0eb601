"""Tailrace: large exports over HTTP that are fast, watchable and provably complete.

The code map; a request flows downward::

    request → query → lane → frame → compress → chunk → response, or a job's artifact
                        └→ records, receipts, events, log, metrics

    cli, demo                the commands, the demonstration's data
    processes, server, protocol
                             processes kept running; the server and its HTTP/1.1
    app, working, runtime    wiring of the server and of the worker; what the routes share
    api/, web/               one thin router a resource; pages
    streaming, detached      the one response that every stream of bytes uses; that of events
    jobs/                    exports and what becomes of them
        model, transitions, pace     records, states, rates and the time left (pure)
        request, expectation         what a job is asked for; how many rows it may be
        ledger, queue, log           the rows, fenced; who waits; the events of each
        worker, attempt, beat, upkeep
                                     who runs them: under leases, swept by any
        hub, watching, outbox        who watches them: one look for all, bounded readers
        content, following           the file, also while it grows
        direct, telling, store       direct streams and downloads, with records behind them
    download/                files from disk, and downloads of other services passed on
        files, share, roots, listing, media_types
                                     opened below a folder, told by one descriptor
        decision, reading            what a request gets of a file; its blocks, of one version
        proving                      the receipts of both
        relay, continuing, answer    passed on, and gone on with where an upstream breaks off
        upstreams, upstream, transport, network
                                     where requests may go; connections of our own
        guard, forwarding, lines     which addresses, which headers, JSON lines (pure)
    export/                  a SELECT becomes bytes
        assembly, pipeline, producer, pipe
                                     joins the stages; reads the database in a task of its own
        survey                       what else is asked of the snapshot: totals, the next cursor
        lanes, copy, rows, batch     PostgreSQL's COPY; a cursor whose rows are made text
        iterate, held, items         so are the iterators of other applications (embedding)
        encode, compress, chunk      formats, codings, sizes (pure)
        receipt                      the proof of a stream (pure)
    chat/                    answers of language models, token by token
        provider, echo, openai_api, anthropic_api
                                     one protocol, a stand-in, two makers
        live, transcript, desk       one that runs, its events, who is taken on
        journal, store, following    written behind, replayed, read on any process
        draft, drafting              a wish becomes an export request
    artifacts/               files that grow, are followed, and are published whole or not at all
    catalog, listening       which datasets there are; PostgreSQL's notifications
    databases/               a folder for each kind: how it is read, compares, makes text
    database, embedded       Tailrace's own database; the PostgreSQL that it brings itself
    line, file_sender        a connection that is written to now and then; files past us
    file_part                a part of a file, for the server to send by itself
    observe                  what happens, told once: log and metrics
    grammar/, texts          a query string → a SELECT (pure)
    representation, preferences, preconditions, ranges, sse
                             format negotiation, counts, If-…, Range, events on the wire (pure)
    dataset, column, dialect, access, errors
                             the nouns that everything speaks of
    configuration, explaining, settings, values, upstream_values, toml_lines
                             tailrace.toml and environment → frozen settings
"""

__version__ = "0.1.0"
