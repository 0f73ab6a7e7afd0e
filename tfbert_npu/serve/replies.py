"""What one request may ask, and the forms of the answers to it."""

from __future__ import annotations

import base64
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from starlette.responses import JSONResponse, Response


@dataclass(frozen=True)
class Limits:
    """What one request may ask, and what may wait."""

    texts: int = 2048
    """Texts of a request; more are answered with 413."""
    body: int = 4 * 2**20
    """Bytes of a request; more are answered with 413."""
    queue: int = 4096
    """Texts that wait; more are answered with 429."""
    timeout: float = 60.0
    """Seconds of a request; then it is answered with 503."""


class RefusedError(Exception):
    """An answer other than 200."""

    def __init__(self, status: int, message: str, headers: Mapping[str, str] | None = None) -> None:
        super().__init__(message)
        self.status, self.message, self.headers = status, message, headers


def listed(given: str | list[str]) -> list[str]:
    """One text as a list of one."""
    return [given] if isinstance(given, str) else given


def openai_vector(vector: np.ndarray, encoding: str) -> str | list[float]:
    """A vector in the encoding that was asked for: base64 of float32, or numbers."""
    if encoding == "base64":
        return base64.b64encode(np.ascontiguousarray(vector, "<f4").tobytes()).decode()
    return vector.tolist()


def error_reply(path: str, status: int, message: str, headers: Mapping[str, str] | None = None) -> Response:
    """The form that each client reads its error from."""
    if path.startswith("/v1/"):
        content: dict[str, Any] = {
            "error": {"message": message, "type": "invalid_request_error", "code": status}
        }
    else:
        content = {"error": message, "error_type": "validation" if status < 500 else "overloaded"}
    return JSONResponse(content, status, headers=dict(headers or {}))
