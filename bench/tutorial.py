"""What most tutorials show, served for comparison by ``python -m bench.tutorial URL PORT``.

Many rows are a StreamingResponse over a generator that encodes row by row, one row is a JSON
answer; SQLAlchemy over asyncpg does the rest.
"""

from __future__ import annotations

import json
import sys
from collections.abc import AsyncIterator

import orjson
import sqlalchemy as sa
import uvicorn
from fastapi import FastAPI, Response
from fastapi.responses import StreamingResponse
from sqlalchemy.ext.asyncio import create_async_engine

FIRST = sa.text("SELECT * FROM flights3 WHERE id <= :rows")
ONE = sa.text("SELECT * FROM flights3 WHERE id = :id LIMIT 1")


def create_tutorial(url: str) -> FastAPI:
    """``GET /flights.ndjson?rows=…``, a row at a time, and ``GET /flight?id=…``."""
    app = FastAPI()
    engine = create_async_engine(url, pool_size=16)

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

    return app


if __name__ == "__main__":
    uvicorn.run(create_tutorial(sys.argv[1]), port=int(sys.argv[2]), log_level="warning")
