"""All that is known, part by part."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

from ryu_lw4o6.core.binding import Binding, BindingKey

PAGE = 1000
"""Bindings in a part: so many are made without a pause."""


def in_pages(known: Callable[[], Mapping[BindingKey, Binding]]) -> Iterator[list[Binding]]:
    """Every binding that is ``known``, as it is when its part is asked for."""
    keys = list(known())
    for at in range(0, len(keys), PAGE):
        now = known()
        yield [now[key] for key in keys[at : at + PAGE] if key in now]
