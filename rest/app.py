"""The Ryu application: ``ryu-manager ryu_lw4o6.app rest.app``. Ryu's WSGI server, our answers."""

from __future__ import annotations

import logging
from typing import Any

from ryu import cfg
from ryu.app.wsgi import WSGIApplication
from ryu.base import app_manager
from webob import Request, Response

from rest.api import Api
from ryu_lw4o6.context import LOOPBACK, LwaftrContext

# Ryu listens on every address unless told otherwise.
cfg.CONF.set_default("wsapi_host", LOOPBACK)

# One line for each request is for debugging (--verbose), not for an operator's log.
ACCESS_LOG = logging.getLogger("ryu.lib.hub")


class Rest:
    """Stands where Ryu expects a controller class: one is made for every request."""

    def __init__(self, request: Request, link: Any, data: Api, **config: Any) -> None:
        self._api = data

    def __call__(self, request: Request) -> Response:
        return self._api.handle(request)


class RestApp(app_manager.RyuApp):  # type: ignore[misc]
    _CONTEXTS = {"wsgi": WSGIApplication, "lwaftr": LwaftrContext}  # noqa: RUF012 (Ryu's way)

    def __init__(
        self, *args: Any, wsgi: WSGIApplication, lwaftr: LwaftrContext, **kwargs: Any
    ) -> None:
        super().__init__(*args, **kwargs)
        if not cfg.CONF.verbose:
            ACCESS_LOG.setLevel(logging.WARNING)
        # Every path comes here, so that whatever goes wrong is answered in one way.
        wsgi.mapper.connect("lw4o6", "/{path:.*}", controller=Rest)
        wsgi.registory[Rest.__name__] = Api(lwaftr.service)
