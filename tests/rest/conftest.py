from __future__ import annotations

from collections.abc import Callable

import pytest
from ryu.app.wsgi import WSGIApplication

from rest.app import application
from tests.rest.client import Client
from tests.rest.memory import MemoryService, settings


@pytest.fixture
def service() -> MemoryService:
    return MemoryService(settings())


@pytest.fixture
def client(service: MemoryService) -> Client:
    return Client(application(WSGIApplication(), service))


@pytest.fixture
def client_of() -> Callable[[MemoryService], Client]:
    """For a service that is not the usual one."""
    return lambda service: Client(application(WSGIApplication(), service))
