"""What goes wrong in a world of two replicas: one fault after another, drawn by a seed."""

import os
import random
import signal
import sys
import time
from collections.abc import Callable
from contextlib import suppress

from chaos_world import World


class Faults:
    """What goes wrong, drawn by a seed. Each fault ends with the world whole again, or starting."""

    def __init__(self, world: World, generator: random.Random) -> None:
        self._world = world
        self._random = generator
        self.counts: dict[str, int] = {}
        self._all: dict[str, Callable[[], None]] = {
            "replica killed": self._kill_replica,
            "replica drained": self._drain_replica,
            "engine killed": self._kill_engine,
            "engine paused": self._pause_engine,
            "Redis killed": self._kill_redis,
            "Redis paused": self._pause_redis,
            "S3 killed": self._kill_s3,
            "new digest": self._change_version,
            "adapter disabled": self._disable,
        }

    def run(self, seconds: float) -> None:
        """Cause one fault after another for so long, and each sort once at least.

        Every sort comes before any comes again.
        """
        until_s = time.monotonic() + seconds
        bag: list[str] = []
        while time.monotonic() < until_s or len(self.counts) < len(self._all):
            if not bag:
                bag = self._random.sample(sorted(self._all), len(self._all))
            name = bag.pop()
            print(f"  {name}", file=sys.stderr)
            self._all[name]()
            self.counts[name] = self.counts.get(name, 0) + 1
            self._pause(0.5, 2.0)

    def _pause(self, least_s: float, most_s: float) -> None:
        time.sleep(self._random.uniform(least_s, most_s))

    def _kill_replica(self) -> None:
        replica = self._random.choice(self._world.replicas)
        self._world.orphans += replica.children()
        replica.end()
        self._pause(0.2, 2.0)
        replica.start()

    def _drain_replica(self) -> None:
        replica = self._random.choice(self._world.replicas)
        code = replica.end(signal.SIGTERM)
        # One that was starting still knows no signal of ours.
        if code not in {0, -signal.SIGTERM}:
            raise AssertionError(f"a drained replica ended with {code}")
        replica.start()

    def _kill_engine(self) -> None:
        for pid in self._random.choice(self._world.replicas).children()[:1]:
            _signal(pid, signal.SIGKILL)

    def _pause_engine(self) -> None:
        for pid in self._random.choice(self._world.replicas).children()[:1]:
            _signal(pid, signal.SIGSTOP)
            self._pause(0.5, 2.0)
            _signal(pid, signal.SIGCONT)

    def _kill_redis(self) -> None:
        self._world.redis.end()
        self._pause(0.5, 3.0)
        self._world.redis.start()

    def _pause_redis(self) -> None:
        running = self._world.redis.running
        assert running is not None
        running.send_signal(signal.SIGSTOP)
        self._pause(0.5, 3.0)
        running.send_signal(signal.SIGCONT)

    def _kill_s3(self) -> None:
        self._world.restart_s3(lambda: self._pause(0.5, 3.0))

    def _change_version(self) -> None:
        adapter = self._random.choice(self._world.adapters)
        self._world.publish(adapter, 1 - max(0, adapter.current))

    def _disable(self) -> None:
        adapter = self._random.choice(self._world.adapters)
        self._world.publish(adapter, -1)
        self._pause(0.5, 3.0)
        self._world.publish(adapter, self._random.randrange(2))


def _signal(pid: int, number: int) -> None:
    with suppress(ProcessLookupError):
        os.kill(pid, number)
