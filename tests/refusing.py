"""What the settings say to values that they refuse."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError


def first_message(model: type[Any], **values: Any) -> str:
    with pytest.raises(ValidationError) as caught:
        model.model_validate(values)
    return str(caught.value.errors()[0]["msg"])
