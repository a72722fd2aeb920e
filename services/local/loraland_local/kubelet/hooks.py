"""A container's lifecycle hooks: postStart and preStop."""

import asyncio

import aiohttp

from loraland_local.apiclient.objects import Object
from loraland_local.kubelet import probes
from loraland_local.kubelet.probes import Target


async def run(hook: Object, target: Target, timeout_s: float) -> str | None:
    """Run the hook to its end; return what is wrong, or None."""
    try:
        if "sleep" in hook:
            await asyncio.sleep(float(hook["sleep"]["seconds"]))
            return None
        if "httpGet" in hook:
            async with asyncio.timeout(timeout_s):
                return await probes.check_http(hook["httpGet"], target)
        code, output = await target.execute(hook["exec"]["command"], timeout_s)
    except (OSError, ValueError, TimeoutError, aiohttp.ClientError) as error:
        return f"hook failed: {error!r}"
    return None if code == 0 else f"hook exited with {code}: {output[:512]}"
