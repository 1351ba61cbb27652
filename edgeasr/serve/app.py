"""All that is answered over HTTP: which path goes to which handler, behind which checks."""

from __future__ import annotations

from aiohttp import hdrs, web

from edgeasr import __version__
from edgeasr.serve.http_errors import errors_as_json
from edgeasr.serve.hub import Hub
from edgeasr.serve.live import LivePage
from edgeasr.serve.live_device import LiveDevice, OpenSource
from edgeasr.serve.metrics import CONTENT_TYPE
from edgeasr.serve.page_files import page
from edgeasr.serve.security import Access, add_security_headers, guard, without_token
from edgeasr.serve.transcriptions import Transcriptions
from edgeasr.serve.vosk import vosk

# Something to do and no turn that ended for so long: recognition hangs.
STALLED_S = 30.0


def make_app(hub: Hub, access: Access, model_name: str, open_source: OpenSource) -> web.Application:
    """The application for `aiohttp.web.AppRunner`. open_source: the microphone of this machine, for the live page"""
    metrics = hub.metrics
    app = web.Application(middlewares=[errors_as_json(metrics), guard(access)])
    app.on_response_prepare.append(add_security_headers)
    transcriptions = Transcriptions(hub, model_name)
    status = _Status(hub, model_name)

    async def open_vosk(request: web.Request) -> web.StreamResponse:
        return await vosk(request, hub)

    @without_token
    async def root(request: web.Request) -> web.StreamResponse:
        """The live page; and clients of vosk-server open a web socket here."""
        if request.headers.get(hdrs.UPGRADE, "").lower() == "websocket":
            access.require_token(request)
            return await vosk(request, hub)
        return await page(request)

    app.add_routes(
        [
            web.get("/", root),
            web.get("/vosk", open_vosk),
            web.post("/v1/audio/transcriptions", transcriptions.transcribe),
            web.get("/v1/models", transcriptions.models),
            web.get("/health", status.health),
            web.get("/metrics", status.metrics),
        ]
    )
    LivePage(hub, access, LiveDevice(hub, open_source), model_name).add_to(app)
    return app


class _Status:
    def __init__(self, hub: Hub, model_name: str) -> None:
        self._hub, self._model_name = hub, model_name

    @without_token
    async def health(self, request: web.Request) -> web.Response:
        """Whether recognition moves; 503 where it does not."""
        del request
        hub = self._hub
        status = "stopping" if hub.stopping else "stalled" if hub.stalled_s > STALLED_S else "ok"
        answer = {
            "status": status,
            "model": self._model_name,
            "version": __version__,
            "streams": hub.num_streams,
            "max_streams": hub.limits.max_streams,
            "waiting_s": round(hub.waiting_s(), 3),
        }
        return web.json_response(answer, status=200 if status == "ok" else 503)

    async def metrics(self, request: web.Request) -> web.Response:
        """For Prometheus."""
        del request
        return web.Response(body=self._hub.metrics.text(), headers={hdrs.CONTENT_TYPE: CONTENT_TYPE})
