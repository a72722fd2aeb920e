"""The door to training pods: asks one for its progress."""

import logging

import aiohttp
from loraland_core import jobspec
from loraland_core.errors import InvalidInput

log = logging.getLogger(__name__)

TIMEOUT_S = 2.0
MAX_REPLY_BYTES = 64 * 1024


class ProgressReader:
    """Asks training pods; one that does not answer yet is nothing unusual."""

    def __init__(self, session: aiohttp.ClientSession) -> None:
        self._session = session

    async def read(self, pod_ip: str) -> jobspec.Progress | None:
        host = f"[{pod_ip}]" if ":" in pod_ip else pod_ip
        url = f"http://{host}:{jobspec.PROGRESS_PORT}/progress"
        try:
            timeout = aiohttp.ClientTimeout(total=TIMEOUT_S)
            async with self._session.get(url, timeout=timeout, allow_redirects=False) as response:
                if response.status != 200:
                    return None
                return jobspec.parse_progress(await response.content.read(MAX_REPLY_BYTES))
        except (aiohttp.ClientError, TimeoutError, OSError, InvalidInput) as error:
            log.debug("no progress from %s: %r", url, error)
            return None
