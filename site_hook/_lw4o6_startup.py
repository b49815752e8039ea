"""Run by Python at start-up: what ``ryu-manager`` needs before it imports any application.

Four modules are touched up, each only when a program imports it:

- ``eventlet.wsgi`` gets back the name ``ALREADY_HANDLED``. Ryu 4.34 imports it, eventlet has
  dropped it. An empty list is right for web sockets as well: eventlet marks those itself.
- ``ryu.cfg`` gets the option ``--lw4o6-config``. ryu-manager reads its command line first and
  imports the applications afterwards, which is too late for them to add options.
- ``eventlet`` is imported without its warning that it is in maintenance mode.
- ``ryu.log`` makes its handlers with real locks, which is what ``ryu_lw4o6.threads`` wants of them:
  eventlet cannot replace those that they would have, and would complain of it at every start.

Every Python program of the environment runs this file, so it imports nothing and does nothing but
put a finder, which looks up one name per import, in front of the others.
"""

import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from importlib.machinery import ModuleSpec
    from types import ModuleType
    from typing import Any


def _already_handled(module: "ModuleType") -> None:
    vars(module).setdefault("ALREADY_HANDLED", [])


def _config_option(module: "ModuleType") -> None:
    option = module.StrOpt(
        "lw4o6-config",
        metavar="FILE",
        help="configuration file of ryu-lw4o6 (default: $LW4O6_CONFIG, then /etc/lw4o6/lw4o6.yaml)",
    )
    module.CONF.register_cli_opt(option)


def _handlers_locks(module: "ModuleType") -> None:
    make = module.init_log

    def init_log() -> None:
        import logging
        import threading

        make()
        for handler in logging.getLogger().handlers:
            handler.lock = threading._CRLock()  # type: ignore[attr-defined]

    vars(module)["init_log"] = init_log


def _nothing(module: "ModuleType") -> None:
    pass


_TOUCH_UPS = {
    "eventlet": _nothing,
    "eventlet.wsgi": _already_handled,
    "ryu.cfg": _config_option,
    "ryu.log": _handlers_locks,
}


class _Finder:
    @classmethod
    def find_spec(
        cls,
        name: str,
        path: "Sequence[str] | None" = None,
        target: "ModuleType | None" = None,
    ) -> "ModuleSpec | None":
        touch_up = _TOUCH_UPS.get(name)
        if touch_up is None:
            return None
        for finder in sys.meta_path:
            if finder is cls or not hasattr(finder, "find_spec"):
                continue
            spec = finder.find_spec(name, path, target)
            if spec is not None:
                _after_import(spec.loader, touch_up)
                return spec
        return None


def _after_import(loader: "Any", touch_up: "Callable[[ModuleType], None]") -> None:
    if not hasattr(loader, "exec_module"):
        return
    run = loader.exec_module

    def exec_module(module: "ModuleType") -> None:
        import warnings

        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message=r"\s*Eventlet is deprecated")
            run(module)
        try:
            touch_up(module)
        except Exception as error:  # the program may not even be a controller: let it go on
            print(f"ryu-lw4o6 start-up hook: {module.__name__}: {error!r}", file=sys.stderr)

    loader.exec_module = exec_module


if _Finder not in sys.meta_path:
    sys.meta_path.insert(0, _Finder)
