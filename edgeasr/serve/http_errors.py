"""Errors of HTTP requests, as OpenAI's interface has them: {"error": {"message", "type", "param", "code"}}."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from http import HTTPStatus

from aiohttp import hdrs, web
from aiohttp.http_exceptions import HttpProcessingError
from aiohttp.typedefs import Handler, Middleware

from edgeasr.errors import EdgeasrError
from edgeasr.serve.hub import StreamRefusedError
from edgeasr.serve.metrics import Metrics

_log = logging.getLogger(__name__)

# For aiohttp, which would write a traceback of every malformed request and of every client that goes away.
connections_log = logging.getLogger(f"{__name__}.connections")
connections_log.addFilter(lambda record: not _is_of_a_client(record))

_SERVER_FAULT = "the request ended by a fault of the server, whose log has more of it"


class HttpError(Exception):
    """A request that is refused.

    status: of the answer
    code:   a word for programs, and for the metrics
    param:  of the request, that is to blame
    """

    def __init__(
        self,
        status: int,
        message: str,
        code: str,
        *,
        param: str | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(message)
        self.status, self.code, self.param, self.headers = status, code, param, dict(headers or {})

    def as_dict(self) -> dict[str, object]:
        """For JSON."""
        kind = "server_error" if self.status >= HTTPStatus.INTERNAL_SERVER_ERROR else "invalid_request_error"
        error = {"message": str(self), "type": kind, "param": self.param, "code": self.code}
        return {"error": error}

    def response(self) -> web.Response:
        """The answer."""
        return web.json_response(self.as_dict(), status=self.status, headers=self.headers)


def _is_of_a_client(record: logging.LogRecord) -> bool:
    error = record.exc_info[1] if record.exc_info else None
    return isinstance(error, HttpProcessingError | ConnectionError)


def busy(message: str, code: str, retry_after_s: int) -> HttpError:
    """What can be tried again."""
    return HttpError(503, message, code, headers={hdrs.RETRY_AFTER: str(retry_after_s)})


def http_error(error: Exception) -> HttpError:
    """What an exception means for a client."""
    if isinstance(error, HttpError):
        return error
    if isinstance(error, StreamRefusedError):
        return busy(str(error), "busy", error.retry_after_s)
    if isinstance(error, EdgeasrError):
        return HttpError(400, str(error), "invalid_audio", param="file")
    if isinstance(error, web.HTTPException):
        allowed: dict[str, str] = {hdrs.ALLOW: error.headers[hdrs.ALLOW]} if hdrs.ALLOW in error.headers else {}
        return HttpError(error.status, error.reason, "http", headers=allowed)
    return HttpError(500, _SERVER_FAULT, "server")


def errors_as_json(metrics: Metrics) -> Middleware:
    """The middleware that answers with them; outermost."""

    @web.middleware
    async def answered(request: web.Request, handler: Handler) -> web.StreamResponse:
        try:
            return await handler(request)
        except ConnectionError:
            raise  # there is nobody to be told
        except Exception as error:  # noqa: BLE001 - whatever it is, the client is told and the server goes on
            answer = http_error(error)
            if answer.status == HTTPStatus.INTERNAL_SERVER_ERROR:
                _log.exception("a request ended by a fault of the program")
            if not isinstance(error, StreamRefusedError):  # which the hub has counted
                metrics.refused.labels(answer.code).inc()
            return answer.response()

    return answered
