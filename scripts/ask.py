"""Asks the quickstart's adapter one question; what `scripts/accept-kind.sh` runs in a pod."""

import asyncio
import os
import sys

from loraland_client import Client

FIELDS = {"message": "The kettle from order 17305 arrived broken, please help today."}


async def main() -> None:
    async with Client(os.environ["ADDRESS"], os.environ["TOKEN"]) as client:
        answer = await client.generate(
            adapter="default/support-desk", fields=FIELDS, max_tokens=48, timeout_s=120
        )
    sys.stdout.write(answer.text + "\n")


asyncio.run(main())
