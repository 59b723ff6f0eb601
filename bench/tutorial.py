"""What most tutorials show, served for comparison by ``python -m bench.tutorial URL PORT``.

Many rows are a StreamingResponse over a generator that encodes row by row, one row is a JSON
answer; SQLAlchemy over asyncpg does the rest. A file is a FileResponse, and a relay a
StreamingResponse over what httpx2 reads.
"""

from __future__ import annotations

import json
import sys
from collections.abc import AsyncIterator

import httpx2
import orjson
import sqlalchemy as sa
import uvicorn
from fastapi import FastAPI, Response
from fastapi.responses import FileResponse, StreamingResponse
from sqlalchemy.ext.asyncio import create_async_engine

FIRST = sa.text("SELECT * FROM flights3 WHERE id <= :rows")
ONE = sa.text("SELECT * FROM flights3 WHERE id = :id LIMIT 1")


def create_tutorial(url: str) -> FastAPI:
    """``/flights.ndjson?rows=…``, ``/flight?id=…``, ``/file?path=…`` and ``/relay?url=…``."""
    app = FastAPI()
    engine = create_async_engine(url, pool_size=16)
    client = httpx2.AsyncClient()

    async def lines(rows: int) -> AsyncIterator[str]:
        async with engine.connect() as connection:
            result = await connection.stream(FIRST, {"rows": rows})
            async for row in result:
                yield json.dumps(dict(row._mapping), default=str) + "\n"

    @app.get("/flights.ndjson")
    async def flights(rows: int) -> StreamingResponse:
        return StreamingResponse(lines(rows), media_type="application/x-ndjson")

    @app.get("/flight")
    async def flight(id: int) -> Response:  # noqa: A002 - the name in the query string
        async with engine.connect() as connection:
            found = await connection.execute(ONE, {"id": id})
            body = [dict(row._mapping) for row in found]
        return Response(orjson.dumps(body), media_type="application/json")

    @app.get("/file")
    async def file(path: str) -> FileResponse:
        return FileResponse(path)

    async def passed(url: str) -> AsyncIterator[bytes]:
        async with client.stream("GET", url) as upstream:
            async for block in upstream.aiter_raw():
                yield block

    @app.get("/relay")
    async def relay(url: str) -> StreamingResponse:
        return StreamingResponse(passed(url))

    return app


if __name__ == "__main__":
    uvicorn.run(create_tutorial(sys.argv[1]), port=int(sys.argv[2]), log_level="warning")
