"""A network namespace for each of several servers, on one bridge: a cable to each that can be unplugged."""

import os
import random
import shutil
import subprocess
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path


def missing_reason() -> str | None:
    """Return why this machine can't have network namespaces; None if it can."""
    if os.geteuid() != 0 or shutil.which("ip") is None:
        return "network namespaces need root and ip (iproute2)"
    tried = subprocess.run(["unshare", "--net", "true"], check=False, capture_output=True, text=True)
    return f"network namespaces are refused: {tried.stderr.strip()}" if tried.returncode else None


class Namespaces:
    """`hosts` are the addresses of `count` namespaces, which this one reaches over the bridge."""

    def __init__(self, count: int) -> None:
        number = random.randrange(1, 255)
        self._name = f"prihod{os.getpid() % 10**6}"[-12:]
        self._network = f"10.213.{number}"
        self.hosts = [f"{self._network}.{number + 1}" for number in range(count)]
        self.clients = f"{self._network}.254"  # this process's address, as the hosts see it

    def create(self) -> None:
        """Create the bridge, and a namespace with a cable to it for each host."""
        _ip("link", "add", self._name, "type", "bridge")
        _ip("address", "add", f"{self.clients}/24", "dev", self._name)
        _ip("link", "set", self._name, "up")
        for number, host in enumerate(self.hosts):
            inside, outside = self._namespace(number), self._cable(number)
            _ip("netns", "add", inside)
            _ip("link", "add", outside, "type", "veth", "peer", "name", "eth0", "netns", inside)
            _ip("link", "set", outside, "master", self._name, "up")
            for command in (
                ["link", "set", "lo", "up"],
                ["address", "add", f"{host}/24", "dev", "eth0"],
                ["link", "set", "eth0", "up"],
            ):
                _ip("-netns", inside, *command)

    def exist(self) -> bool:
        return Path(f"/sys/class/net/{self._name}").exists()

    def prefix(self, number: int) -> list[str]:
        """Return what a command that runs in a namespace begins with."""
        return ["nsenter", f"--net=/run/netns/{self._namespace(number)}", "--"]

    def unplug(self, number: int) -> None:
        _ip("link", "set", self._cable(number), "down")

    def plug_in(self, number: int) -> None:
        _ip("link", "set", self._cable(number), "up")

    def delete(self) -> None:
        commands: list[Sequence[str]] = [("link", "delete", self._name)]
        for number in range(len(self.hosts)):
            commands += [
                ("link", "delete", self._cable(number)),
                ("netns", "delete", self._namespace(number)),
            ]
        for command in commands:
            with suppress(subprocess.CalledProcessError):  # it was not created
                _ip(*command)

    def _namespace(self, number: int) -> str:
        return f"{self._name}-{number}"

    def _cable(self, number: int) -> str:
        return f"{self._name}c{number}"  # a name of an interface has at most 15 characters


def _ip(*arguments: str) -> None:
    subprocess.run(["ip", *arguments], check=True, capture_output=True)
