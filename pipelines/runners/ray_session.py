"""Start and end Ray: what stages need of it and no more, patiently, errors in one sentence.

`ray.init` of a local Ray starts five Python processes before the first task: dashboard, monitor of
the autoscaler, log monitor, and the raylet's two agents. Each costs seconds of CPU, the raylet of
Ray 2.60 aborts where an agent has not told its port within 15 s, and `ray.init` waits 30 s for the
raylet: too little at a load of 16, and no setting changes it. So the head node is started here with
the two agents alone, which nothing waits for: no stage uses metrics or runtime environments.
"""

from __future__ import annotations

import importlib
import logging
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import psutil

from curate.base.errors import CaplabError, StageError
from curate.base.progress import tell
from pipelines.terminal.failures import first_line, in_words

START_SECONDS = 180.0
"""How long a raylet may take to register on a busy machine."""
_TRIES = 2
_ENVIRONMENT = {
    # Started through `uv run`, Ray would build an environment for its workers once more.
    "RAY_ENABLE_UV_RUN_RUNTIME_ENV": "0",
    # Counters and errors come back as values; metrics export would only open ports.
    "RAY_enable_metrics_collection": "0",
    "RAY_USAGE_STATS_ENABLED": "0",
    # Actors start processes of their own; idle ones started ahead would cost a CPU second each.
    "RAY_prestart_worker_first_driver": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    # Python processes come up slowly on a busy machine; Ray's own patience is 30 to 60 s.
    "RAY_gcs_server_port_wait_time_s": f"{START_SECONDS:.0f}",
    "RAY_raylet_start_wait_time_s": f"{START_SECONDS:.0f}",
    "RAY_agent_register_timeout_ms": f"{START_SECONDS * 1000:.0f}",
    "RAY_worker_register_timeout_seconds": f"{START_SECONDS:.0f}",
}


@contextmanager
def ray_session(address: str | None = None, cpus: int | None = None) -> Iterator[None]:
    """A running Ray: the one that runs already, the cluster at `address`, or a local one.

    Args:
        address: of a cluster, such as 10.0.0.1:6379.
        cpus: CPUs of a local Ray; None takes what the machine has.

    Raises:
        StageError: Ray cannot be started or reached, or broke down inside of the block.
    """
    import ray

    if ray.is_initialized():
        yield
        return
    for name, value in _ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    handler = signal.getsignal(signal.SIGTERM)
    head = None if address else _started(cpus)
    # Of this process alone: its core would print remarks on Ray Data's own actors between our bars,
    # and the end of a dead raylet's log. What goes wrong comes back as an exception.
    os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "fatal")
    try:
        _connect(head.address if head else str(address))
        if threading.current_thread() is threading.main_thread():
            # Ray puts its own handler there, which ends a command with status 15.
            signal.signal(signal.SIGTERM, handler)
        yield
    except ray.exceptions.RayError as error:
        raise _told(error) from error
    finally:
        ray.shutdown()
        if head:
            head.kill_all_processes(check_alive=False, allow_graceful=True)


def _told(error: Exception) -> CaplabError:
    """What a person reads of an error of Ray's, or of one that came back from a worker."""
    cause = getattr(error, "cause", None)
    if isinstance(cause, CaplabError):
        return cause
    return StageError(
        f"Ray broke down: {in_words(error)}. What was written is kept; the same command continues."
    )


def _connect(address: str) -> None:
    import ray
    from ray._private.worker import global_worker

    try:
        with _unheard():
            ray.init(address=address, log_to_driver=False, logging_level=logging.ERROR)
        # As ray.shutdown does it: what its processes tell the driver would be printed to standard
        # output (retries, the end of a dead raylet's log). What matters is raised as well.
        global_worker.threads_stopped.set()
        global_worker.gcs_error_subscriber.close()
    except (ConnectionError, RuntimeError, ValueError) as error:
        raise StageError(f"No Ray answers at {address} ({first_line(error)}).") from error


@contextmanager
def _unheard() -> Iterator[None]:
    """Let nothing reach stderr: Ray's core says there that its log level was set."""
    sys.stderr.flush()
    kept, nowhere = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 2)
    try:
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(nowhere)


def _started(cpus: int | None) -> Any:
    """A local head node; one more try where the first fails.

    Raises:
        StageError: neither came up.
    """
    tell("starting Ray")
    for attempt in range(1, _TRIES + 1):
        before = set(psutil.Process().children())
        try:
            return _head_node(cpus)
        # Ray raises a bare Exception where a process of its own does not come up.
        except Exception as error:
            for process in set(psutil.Process().children(recursive=True)) - before:
                process.kill()
            if attempt == _TRIES:
                raise StageError(
                    f"Ray did not start in {_TRIES} tries ({first_line(error)}); the machine may "
                    f"be too busy, or out of memory, or of space in /tmp and /dev/shm."
                ) from error
            tell("Ray did not start; trying once more")
    raise AssertionError("unreachable")


def _head_node(cpus: int | None) -> Any:
    from ray._private import services
    from ray._private.node import Node
    from ray._private.parameter import RayParams

    raylet: Any = importlib.import_module("ray._raylet")  # compiled, without types

    class Head(Node):
        """The part of Ray's own head node that runs tasks."""

        def start_api_server(self, **_: Any) -> None:
            """None: there is no dashboard, and nothing is reported."""

        def start_ray_processes(self) -> None:
            """Say in place of the agents where they listen, and wait for the raylet."""
            ports = {
                # -1, as an agent says that serves nothing.
                raylet.METRICS_AGENT_PORT_NAME: -1,
                raylet.METRICS_EXPORT_PORT_NAME: -1,
                raylet.DASHBOARD_AGENT_LISTEN_PORT_NAME: -1,
                raylet.RUNTIME_ENV_AGENT_PORT_NAME: self._ray_params.runtime_env_agent_port,
            }
            for name, port in ports.items():
                raylet.persist_port(self._session_dir, self._node_id, name, port)
            super().start_ray_processes()
            give_up_at = time.monotonic() + START_SECONDS
            while time.monotonic() < give_up_at:
                try:
                    services.get_node(self.gcs_address, self._node_id)
                except RuntimeError:
                    if dead := self.dead_processes():
                        names = ", ".join(name for name, _ in dead)
                        raise RuntimeError(f"its {names} ended") from None
                    time.sleep(0.2)
                else:
                    return

    params = RayParams(
        num_cpus=cpus,
        include_dashboard=False,
        no_monitor=True,
        include_log_monitor=False,
        runtime_env_agent_port=_free_port(),
    )
    # As in ray.init, its processes end with this one, also by kill -9.
    return Head(params, head=True, shutdown_at_exit=False, spawn_reaper=True, ray_init_cluster=True)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
