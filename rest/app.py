"""The Ryu application: ``ryu-manager ryu_lw4o6.app rest.app``."""

from __future__ import annotations

from typing import Any

from ryu import cfg
from ryu.app.wsgi import WSGIApplication
from ryu.base import app_manager

from rest import server
from rest.api import Api
from rest.http import Answer
from rest.service import BindingService
from rest.stream import Stream
from ryu_lw4o6.context import LOOPBACK, LwaftrContext

# Ryu listens on every address unless told otherwise.
cfg.CONF.set_default("wsapi_host", LOOPBACK)


class Rest:
    """Stands where Ryu expects a controller class: one is made for every request."""

    def __init__(self, request: Any, link: Any, data: Api, **config: Any) -> None:
        self._api = data

    def __call__(self, request: Any) -> Answer | Stream:
        return self._api.dispatch(request.environ)


def application(wsgi: WSGIApplication, service: BindingService) -> server.Guard:
    """The API as a WSGI application: registered with Ryu's, which others may share, and guarded."""
    wsgi.mapper.connect("lw4o6", "/{path:[\\s\\S]*}", controller=Rest)
    wsgi.registory[Rest.__name__] = Api(service)
    return server.Guard(wsgi, service.settings.rest)


class RestApp(app_manager.RyuApp):  # type: ignore[misc]
    _CONTEXTS = {"wsgi": WSGIApplication, "lwaftr": LwaftrContext}  # noqa: RUF012 (Ryu's way)

    def __init__(
        self, *args: Any, wsgi: WSGIApplication, lwaftr: LwaftrContext, **kwargs: Any
    ) -> None:
        super().__init__(*args, **kwargs)
        server.install(application(wsgi, lwaftr.service))
