"""A link between browser and relay that becomes another one while it is used: `narrow_link.py RELAY_PORT`.

It says `{"port": N}`: dial there. Each line on its standard input is a new shape, such as `600kbit,2%`; an empty
one is as good as no link at all. It answers `{"shape": TEXT}`.
"""

from __future__ import annotations

import json
import sys

import trio

from control.demo.shaper import LinkShape, Shaper, parse_link


async def main(relay_port: int) -> None:
    shaper = Shaper(("127.0.0.1", relay_port), LinkShape())
    print(json.dumps({"port": shaper.port}), flush=True)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(shaper.run)
        while line := await trio.to_thread.run_sync(sys.stdin.readline, abandon_on_cancel=True):
            shaper.reshape(parse_link(line.strip()))
            print(json.dumps({"shape": line.strip()}), flush=True)
        nursery.cancel_scope.cancel()


if __name__ == "__main__":
    trio.run(main, int(sys.argv[1]))
