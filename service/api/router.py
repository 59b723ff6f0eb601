"""Routers whose GET routes answer HEAD, too (RFC 9110, section 9.3.2)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

from fastapi import APIRouter

Endpoint = TypeVar("Endpoint", bound=Callable[..., Any])


class Router(APIRouter):
    """HEAD runs the endpoint of GET; the server keeps the body back."""

    def get(self, path: str, **options: Any) -> Callable[[Endpoint], Endpoint]:
        """As ``APIRouter.get``, with a HEAD that OpenAPI does not show beside it."""

        def register(endpoint: Endpoint) -> Endpoint:
            self.add_api_route(path, endpoint, methods=["GET"], **options)
            # A route of its own: two methods of one would share an operationId.
            hidden = options | {"include_in_schema": False}
            self.add_api_route(path, endpoint, methods=["HEAD"], **hidden)
            return endpoint

        return register
