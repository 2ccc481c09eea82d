"""Servers in processes of their own: prumerge's, and vLLM on this machine's CPU, in the environment that
`make vllm-env` makes."""

import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

import httpx2

PYTHON = Path(os.environ.get("VLLM_ENV", ".venv-vllm")).absolute() / "bin" / "python"
OPTIONS = (
    "--enable-prompt-embeds", "--dtype", "float32", "--max-model-len", "2048", "--max-num-seqs", "16",
    "--enforce-eager", "--no-enable-log-requests", "--disable-uvicorn-access-log",
)  # fmt: skip
VARIABLES = {
    "VLLM_CPU_KVCACHE_SPACE": "1",  # GiB
    "VLLM_CPU_OMP_THREADS_BIND": "nobind",
    "OMP_NUM_THREADS": "1",
    "VLLM_NO_USAGE_STATS": "1",
    "HF_HUB_OFFLINE": "1",
    "TRANSFORMERS_OFFLINE": "1",
}


class Server:
    """A server in a process group of its own, which ends with all its processes."""

    def __init__(self, module, port, arguments, *, python=PYTHON, **variables):
        self.port, self.url = port, f"http://127.0.0.1:{port}"
        self._log = tempfile.TemporaryFile("w+")  # noqa: SIM115
        self.process = subprocess.Popen(
            [python, "-m", module, *map(str, arguments)],
            stdout=self._log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            env={**os.environ, **VARIABLES, **variables},
        )

    def is_up(self, path="/health"):
        try:
            return HTTP.get(f"{self.url}{path}").status_code == 200
        except httpx2.HTTPError:
            return False

    def wait(self, seconds=300):
        """Until it answers."""
        end = time.monotonic() + seconds
        while not self.is_up():
            if self.process.poll() is not None or time.monotonic() > end:
                raise RuntimeError(f"it does not start:\n{self.said()}")
            time.sleep(0.5)
        return self

    def said(self):
        """The end of its log."""
        self._log.seek(0)
        return self._log.read()[-4000:]

    def parts(self):
        """The processes of its group, by what they call themselves."""
        return {name: pid for pid, name in _group(self.process.pid)}

    def memory(self):
        """MiB that its processes hold."""
        return sum(_resident(pid) for pid, _ in _group(self.process.pid)) // 1024

    def end(self):
        """Kill all of it, at once."""
        with suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()
        self._log.close()


HTTP = httpx2.Client(timeout=2, trust_env=False, limits=httpx2.Limits(max_keepalive_connections=0))


def version(package):
    """Of a package in the environment of the engines."""
    asks = f"from importlib.metadata import version; print(version({package!r}))"
    return subprocess.run([PYTHON, "-c", asks], check=True, capture_output=True, text=True).stdout.strip()


def free_port():
    with socket.create_server(("127.0.0.1", 0)) as held:
        return held.getsockname()[1]


def engine(folder, *options, port=None):
    """vLLM with a folder of `prumerge export-lm`, which has yet to start."""
    port = port or free_port()
    named = ("--model", folder, "--served-model-name", "lm", "--host", "127.0.0.1", "--port", port)
    return Server("vllm.entrypoints.openai.api_server", port, [*named, *OPTIONS, *options])


def router(*urls):
    """vllm-router in front of engines that answer."""
    port, metrics = free_port(), free_port()
    own = ("--host", "127.0.0.1", "--port", port, "--prometheus-port", metrics, "--policy", "round_robin")
    return Server(
        "vllm_router.launch_router",
        port,
        [*own, "--health-check-interval-secs", 5, "--worker-urls", *urls],
    )


def front(*options, **variables):
    """`prumerge serve`, with environment variables."""
    port = free_port()
    return Server("prumerge", port, ["serve", "--port", port, *options], python=sys.executable, **variables)


@contextmanager
def started(*servers):
    """Servers while a `with` lasts, once they answer."""
    with ExitStack() as stack:
        for server in servers:
            stack.callback(server.end)
        for server in servers:
            server.wait()
        yield servers


def _group(leader):
    """The process ids of a group, each with the name of its process."""
    for folder in Path("/proc").iterdir():
        if folder.name.isdecimal():
            try:
                fields = (folder / "stat").read_text().rpartition(")")[2].split()
                if int(fields[2]) == leader and fields[0] != "Z":
                    name = (folder / "cmdline").read_bytes().split(b"\0")[0].decode()
                    yield int(folder.name), name
            except OSError:  # it has ended
                continue


def _resident(pid):
    """KiB that a process holds."""
    try:
        status = Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return 0
    return next((int(line.split()[1]) for line in status.splitlines() if line.startswith("VmRSS")), 0)
