"""The tutorial's way: a StreamingResponse over a generator that encodes row by row.

Served for comparison by ``python -m bench.tutorial URL PORT``.
"""

from __future__ import annotations

import json
import sys
from collections.abc import AsyncIterator

import sqlalchemy as sa
import uvicorn
from fastapi import FastAPI
from fastapi.responses import StreamingResponse
from sqlalchemy.ext.asyncio import create_async_engine


def create_tutorial(url: str) -> FastAPI:
    """``GET /flights.ndjson``: every row of flights, one at a time."""
    app = FastAPI()
    engine = create_async_engine(url)

    async def rows() -> AsyncIterator[str]:
        async with engine.connect() as connection:
            result = await connection.stream(sa.text("SELECT * FROM flights"))
            async for row in result:
                yield json.dumps(dict(row._mapping), default=str) + "\n"

    @app.get("/flights.ndjson")
    async def flights() -> StreamingResponse:
        return StreamingResponse(rows(), media_type="application/x-ndjson")

    return app


if __name__ == "__main__":
    uvicorn.run(create_tutorial(sys.argv[1]), port=int(sys.argv[2]), log_level="warning")
