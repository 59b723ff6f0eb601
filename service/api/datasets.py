"""GET /v1/datasets: what may be read."""

from __future__ import annotations

from typing import Any

from fastapi import Request
from starlette.responses import Response

from service.access import Action, Common, authorize, may
from service.api.addresses import base_of, quoted
from service.api.json import stable_json
from service.api.openapi import COLUMN, DATASET, NOT_FOUND, NOT_MODIFIED, answers
from service.api.router import Router
from service.dataset import Dataset
from service.errors import NotFound
from service.export.encode import FORMATS
from service.runtime import caller_of, service_of

router = Router(tags=["datasets"])


@router.get(
    "/v1/datasets",
    summary="The datasets that the caller may read",
    responses=answers("Every dataset, by name.", {"datasets": [DATASET]}) | NOT_MODIFIED,
)
async def list_datasets(request: Request) -> Response:
    """Names, titles, descriptions, formats, the planner's estimate of the rows, and links."""
    readable, base = await readable_datasets(request), base_of(request)
    return stable_json(request, {"datasets": [summary(dataset, base) for dataset in readable]})


@router.post(
    "/v1/datasets/refresh",
    summary="Look at the sources again",
    status_code=204,
    responses={204: {"description": "Every source has been looked at."}},
)
async def refresh(request: Request) -> Response:
    """Reads the catalogues of every source anew: new tables, columns and comments appear."""
    authorize(caller_of(request), Action.OPERATE, Common())
    await service_of(request).catalog.refresh()
    return Response(status_code=204)


@router.get(
    "/v1/datasets/{name:path}",
    summary="One dataset with its columns",
    responses=answers(
        "The dataset with its columns.",
        {**DATASET, "columns": [COLUMN], "key": ["id"], "examples": ["curl -sSfO '…/scores.csv'"]},
    )
    | NOT_MODIFIED
    | NOT_FOUND,
)
async def get_dataset(request: Request, name: str) -> Response:
    """Adds columns with types and descriptions, the key, and commands to try."""
    dataset = await readable_dataset(request, name)
    base = base_of(request)
    columns = [
        {
            "name": column.name,
            "type": column.type,
            "nullable": column.nullable,
            "description": column.description,
        }
        for column in dataset.columns
    ]
    return stable_json(
        request,
        summary(dataset, base)
        | {"columns": columns, "key": list(dataset.key), "examples": examples(dataset, base)},
    )


async def readable_datasets(request: Request) -> list[Dataset]:
    """All that the caller may read, by name."""
    found = (await service_of(request).catalog.datasets()).values()
    return [item for item in found if may(caller_of(request), Action.READ, item)]


async def readable_dataset(request: Request, name: str) -> Dataset:
    """The dataset, if the caller may read it; one that may not be read is not there."""
    dataset = await service_of(request).catalog.dataset(name)
    if not may(caller_of(request), Action.READ, dataset):
        raise NotFound(f"There is no dataset {name!r}.")
    return dataset


def summary(dataset: Dataset, base: str) -> dict[str, Any]:
    """The dataset as the list shows it; ``base`` is the address up to ``/v1``."""
    rows = f"{base}/v1/rows/{quoted(dataset.name)}"
    return {
        "name": dataset.name,
        "title": dataset.title,
        "description": dataset.description,
        "formats": list(FORMATS),
        "estimated_rows": dataset.estimated_rows,
        "links": {
            "self": f"{base}/v1/datasets/{quoted(dataset.name)}",
            **{name: f"{rows}.{name}" for name in FORMATS},
        },
    }


def examples(dataset: Dataset, base: str) -> list[str]:
    """Lines for a shell."""
    rows = f"{base}/v1/rows/{quoted(dataset.name)}"
    first = quoted(dataset.columns[0].name)
    return [
        f"curl -sSfO '{rows}.csv'",
        f"curl -sSf '{rows}.ndjson?limit=5'",
        f"curl -sSf '{rows}.ndjson?select={first}&order={first}.desc&limit=5&end=1'",
        f"curl -sSfOJ '{rows}.csv?compression=zstd'",
    ]
