"""``lw4o6 drain`` and ``lw4o6 undrain``: ask a running controller, over REST."""

from __future__ import annotations

import argparse
import http.client
import json
import sys
from pathlib import Path
from typing import Any
from urllib.parse import SplitResult, quote, urlsplit

DEFAULT_URL = "http://127.0.0.1:8080"
_SECONDS = 30  # more than a request waits for the store


def register(subparsers: Any) -> None:
    for name, method, what in (
        ("drain", "POST", "withdraw the routes of an instance, so that its traffic goes elsewhere"),
        ("undrain", "DELETE", "announce the routes of a drained instance again"),
    ):
        parser = subparsers.add_parser(name, help=what, description=what)
        parser.add_argument("instance", metavar="INSTANCE", help="its name in the configuration")
        parser.add_argument(
            "--url", default=DEFAULT_URL, help="of the controller's REST API (%(default)s)"
        )
        parser.add_argument("--token-file", type=Path, help="a file with the API's bearer token")
        parser.set_defaults(func=_run, method=method)


def _run(args: argparse.Namespace) -> int:
    url = urlsplit(args.url)
    try:
        right = url.scheme == "http" and bool(url.hostname) and url.port != 0
    except ValueError:  # a port that is none
        right = False
    if not right:
        print(f"{args.url} is no URL of a controller. Write it like {DEFAULT_URL}", file=sys.stderr)
        return 1
    headers = {}
    if args.token_file is not None:
        try:
            headers["Authorization"] = f"Bearer {args.token_file.read_text('ascii').strip()}"
        except OSError as error:
            print(f"{args.token_file} cannot be read: {error.strerror}", file=sys.stderr)
            return 1
        except ValueError:
            print(f"{args.token_file} has no bearer token: it is not ASCII", file=sys.stderr)
            return 1
    try:
        status, answer = _request(args, url, headers)
    except (OSError, ValueError, http.client.HTTPException) as error:
        reason = getattr(error, "strerror", None) or error
        print(f"no answer from {args.url}: {reason}. Is the controller running?", file=sys.stderr)
        return 1
    if status != 200:
        print(f"{args.url}: {answer.get('detail', answer)}", file=sys.stderr)
        return 1
    name, obstacle = answer["name"], answer["obstacle"]
    announcements = answer["announcements"]
    if announcements is None:
        print(f"{name}: {'drained' if answer['drained'] else 'not drained'}. It has no announce "
              "in its configuration, so no router is told.")  # fmt: skip
    elif answer["drained"]:
        print(f"{name}: drained; its routes are withdrawn.")
    else:
        print(f"{name}: " + (f"not announced: {obstacle}." if obstacle else "announced."))
    return 0


def _request(
    args: argparse.Namespace, url: SplitResult, headers: dict[str, str]
) -> tuple[int, Any]:
    connection = http.client.HTTPConnection(url.hostname or "", url.port, timeout=_SECONDS)
    try:
        path = f"/v1/switches/{quote(args.instance, safe='')}/drain"
        connection.request(args.method, path, headers=headers)
        response = connection.getresponse()
        return response.status, json.loads(response.read())
    finally:
        connection.close()
