"""What a client sends to have a file transcribed: multipart/form-data, as OpenAI's clients send it."""

from __future__ import annotations

import errno
import logging
import re
import tempfile
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from http import HTTPStatus
from typing import IO

from aiohttp import BadContentDispositionHeader, BadContentDispositionParam, BodyPartReader, web
from aiohttp.http_exceptions import HttpProcessingError

from edgeasr.serve.http_errors import HttpError, busy
from edgeasr.serve.hub import RETRY_AFTER_S, Hub
from edgeasr.serve.limits import Limits

FORMATS = ("json", "text", "srt", "vtt", "verbose_json")
GRANULARITIES = ("segment", "word")
# Names that clients send where nobody told them another.
USUAL_MODELS = ("whisper-1", "gpt-4o-transcribe", "gpt-4o-mini-transcribe")
LANGUAGES = ("en", "english")

_MAX_FIELD_BYTES = 64 << 10
_MAX_FIELDS = 50
_MAX_NAME_CHARS = 100
_GRANULARITIES_FIELD = "timestamp_granularities[]"
_FILE = "file"
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_MALFORMED = (  # of aiohttp's reader, warnings where they are errors
    ValueError,
    AssertionError,
    HttpProcessingError,
    web.RequestPayloadError,
    BadContentDispositionHeader,
    BadContentDispositionParam,
)

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class TranscriptionRequest:
    """Checked.

    path:     where the recording lies, gone after the request; name: as the client calls it, fit to be shown
    format:   of FORMATS
    stream:   answer with server-sent events
    words:    times of words in verbose_json; segments: of segments
    """

    path: str
    name: str
    format: str = "json"
    stream: bool = False
    words: bool = False
    segments: bool = True


@asynccontextmanager
async def received(request: web.Request, hub: Hub, model_name: str) -> AsyncIterator[TranscriptionRequest]:
    """The request, once all of it is here; its file is deleted at the end.

    errors: HttpError for what is missing, too large, too slow, malformed or not to be had, and where there is no room
    """
    limits = hub.limits
    if not request.content_type.startswith("multipart/form-data"):
        raise HttpError(
            415,
            f"got content of type {request.content_type[:100]}, wanted multipart/form-data with a part `file`",
            "content_type",
        )
    if (request.content_length or 0) > limits.max_request_bytes:
        raise _too_large(limits.max_request_bytes)
    try:
        # A buffer would be left on a full disk.
        file = tempfile.NamedTemporaryFile(prefix="edgeasr-", buffering=0)  # noqa: SIM115 - closed below
    except OSError as error:
        raise _no_room(error) from None
    with file:
        try:
            async with hub.patience(limits.request_s):
                name, fields = await _parts(request, file.file, limits)
        except TimeoutError:
            if hub.stopping:
                raise busy("the server is stopping: try again later", "stopping", RETRY_AFTER_S) from None
            raise HttpError(408, f"got no whole request in {limits.request_s:g} s: send it faster", "slow") from None
        except _MALFORMED as error:
            reason = _shown(str(error))
            raise HttpError(
                400, f"got a malformed request ({reason}), wanted multipart/form-data", "malformed"
            ) from None
        except OSError as error:
            if error.errno not in _FULL:
                raise
            raise _no_room(error) from None
        yield _checked(file.name, name, fields, model_name)


def _no_room(error: OSError) -> HttpError:
    reason = error.strerror or error
    _log.error("a recording was refused, there is no room for it (%s): make some, or set TMPDIR", reason)
    message = f"the server has no room for the recording ({reason}): send a smaller one, or try again later"
    return HttpError(HTTPStatus.INSUFFICIENT_STORAGE, message, "storage", param=_FILE)


async def _parts(request: web.Request, file: IO[bytes], limits: Limits) -> tuple[str, dict[str, list[str]]]:
    """The name of the file, whose content goes to `file`, and the other fields."""
    name, fields, left, count = None, dict[str, list[str]](), limits.max_request_bytes, 0
    async for part in await request.multipart():
        count += 1
        if not isinstance(part, BodyPartReader) or part.name is None or count > _MAX_FIELDS:
            raise ValueError("a part without a name, or too many of them")
        if part.name == _FILE:
            if name is not None:
                raise HttpError(400, "got several files, wanted one: send a request for each", "file", param=_FILE)
            name = _shown(part.filename or "the file")
            left -= await _copy(part, file, left, limits.max_request_bytes)
        else:
            fields.setdefault(part.name, []).append(await _text(part))
            left -= len(fields[part.name][-1])
    if name is None:
        raise HttpError(400, "got no file, wanted the recording: send it as `file`", "missing", param=_FILE)
    return name, fields


async def _copy(part: BodyPartReader, file: IO[bytes], left: int, max_bytes: int) -> int:
    """returns: how many bytes"""
    size = 0
    while chunk := await part.read_chunk():
        size += len(chunk)
        if size > left:
            raise _too_large(max_bytes)
        rest = memoryview(chunk)
        while rest:
            rest = rest[file.write(rest) :]
    return size


async def _text(part: BodyPartReader) -> str:
    content = bytearray()
    while chunk := await part.read_chunk():
        content += chunk
        if len(content) > _MAX_FIELD_BYTES:
            raise HttpError(413, f"got more than {_MAX_FIELD_BYTES} bytes, send less", "too_large", param=part.name)
    return content.decode(errors="replace")


def _checked(path: str, name: str, fields: Mapping[str, list[str]], model_name: str) -> TranscriptionRequest:
    values = {key: value[-1].strip() for key, value in fields.items()}
    _one_of(values, "model", (model_name, *USUAL_MODELS))
    _one_of(values, "language", LANGUAGES)
    wanted_format = _one_of(values, "response_format", FORMATS) or FORMATS[0]
    stream = _one_of(values, "stream", ("true", "false", "1", "0")) in ("true", "1")
    granularities = {value.strip() for value in fields.get(_GRANULARITIES_FIELD, [])}
    if unknown := granularities - set(GRANULARITIES):
        raise _not_one_of(_GRANULARITIES_FIELD, unknown.pop(), GRANULARITIES)
    if granularities and wanted_format != "verbose_json":
        raise HttpError(
            400, "got times asked for in another format, wanted verbose_json", "value", param=_GRANULARITIES_FIELD
        )
    if stream and wanted_format not in ("json", "text"):
        raise HttpError(
            400,
            f"got stream and {wanted_format}, wanted json or text: only these are streamed",
            "value",
            param="stream",
        )
    segments = not granularities or "segment" in granularities
    return TranscriptionRequest(path, name, wanted_format, stream, "word" in granularities, segments)


def _one_of(values: Mapping[str, str], key: str, wanted: tuple[str, ...]) -> str:
    """The value, empty where there is none. errors: HttpError for another one"""
    value = values.get(key, "")
    if value and value not in wanted and value.lower() not in wanted:
        raise _not_one_of(key, value, wanted)
    return value if value in wanted else value.lower()


def _not_one_of(key: str, value: str, wanted: tuple[str, ...]) -> HttpError:
    status, code = (404, "model_not_found") if key == "model" else (400, "value")
    shown = repr(value if len(value) <= _MAX_NAME_CHARS else value[:_MAX_NAME_CHARS] + "...")
    return HttpError(status, f"got {key} {shown}, wanted one of {', '.join(wanted)}", code, param=key)


def _too_large(max_bytes: int) -> HttpError:
    return HttpError(
        413,
        f"got a request of more than {max_bytes} bytes: compress the recording, for instance to opus, or cut it",
        "too_large",
        param=_FILE,
    )


def _shown(name: str) -> str:
    return re.sub(r"[^\w. ()+-]", "_", name)[:_MAX_NAME_CHARS]
