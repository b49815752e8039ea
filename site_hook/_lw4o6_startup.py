"""What must be in place before ryu-manager imports its first application.

Python runs this at start-up (by _lw4o6_startup.pth) in the environment ryu-lw4o6 is installed in.
It only registers a finder, which acts when one of two modules is imported:

- ``eventlet.wsgi`` gets back the name ``ALREADY_HANDLED``, which Ryu 4.34 imports and eventlet
  dropped in 0.30.3. An empty list serves: eventlet marks a response as handled by other means now.
- ``ryu.flags`` is imported by ryu-manager before it reads its command line, which is the moment to
  register ``--lw4o6-config``: applications are imported only after that.
"""

import sys
import warnings
from importlib.machinery import PathFinder


def _eventlet_wsgi(module):
    if not hasattr(module, "ALREADY_HANDLED"):
        module.ALREADY_HANDLED = []


def _ryu_flags(_module):
    from oslo_config import cfg
    from ryu.cfg import CONF

    CONF.register_cli_opts(
        [cfg.StrOpt("lw4o6-config", metavar="FILE", help="configuration file of ryu-lw4o6")]
    )


class _Finder:
    after = {"eventlet.wsgi": _eventlet_wsgi, "ryu.flags": _ryu_flags}  # noqa: RUF012

    @classmethod
    def find_spec(cls, name, path=None, target=None):
        action = cls.after.get(name)
        if action is None:
            return None
        spec = PathFinder.find_spec(name, path, target)
        if spec is None or spec.loader is None:
            return spec
        execute = spec.loader.exec_module

        def exec_module(module):
            execute(module)
            action(module)

        spec.loader.exec_module = exec_module
        return spec


# Every import of eventlet says that it is deprecated, which an operator can do nothing about.
warnings.filterwarnings("ignore", message=r"\s*Eventlet is deprecated")
sys.meta_path.insert(0, _Finder)
