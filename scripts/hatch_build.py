"""Build hook: the start-up hook goes beside the packages, whichever way they are installed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface


class StartupHook(BuildHookInterface):  # type: ignore[type-arg]
    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        key = "force_include_editable" if version == "editable" else "force_include"
        folder = Path(self.root) / "site_hook"
        for name in ("_lw4o6_startup.pth", "_lw4o6_startup.py"):
            build_data.setdefault(key, {})[str(folder / name)] = name
