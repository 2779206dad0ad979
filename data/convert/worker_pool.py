"""Calls dealt to processes: results in order, progress on the way, errors at once."""

import contextlib
import gc
import multiprocessing
import multiprocessing.connection
import os
import signal
import traceback
from typing import Any, Callable, List, Sequence, Tuple

from runtime.cli import ROOT


def allowed_cores() -> int:
    """How many processor cores this process may use."""
    allowed = getattr(os, "sched_getaffinity", None)  # Linux
    return len(allowed(0)) if allowed else os.cpu_count() or 1


def cores() -> int:
    """Processor cores that this process may use, at most 4: more wait for the disk."""
    return min(4, allowed_cores())


def run_calls(
    function: Callable[..., Any],
    calls: Sequence[Tuple[Any, ...]],
    workers: int,
    progress: Callable[[int], Any],
) -> List[Any]:
    """[function(*call, report) for call in calls], call i in process i modulo workers.

    report(amount) inside the function reaches progress(amount) here. The first error ends all; one
    raised by this repository's own lines (or by the system) is raised here again as it was."""
    if min(workers, len(calls)) <= 1:
        return [function(*call, progress) for call in calls]
    running, results = {}, [None] * len(calls)
    try:
        for worker in range(min(workers, len(calls))):
            mine = list(enumerate(calls))[worker::workers]
            ours, theirs = multiprocessing.Pipe(duplex=False)
            others = [ours] + list(running)
            process = multiprocessing.Process(
                target=_work, args=(function, mine, theirs, others, os.getpid()), daemon=True
            )
            with _no_interrupt():
                process.start()
            theirs.close()
            running[ours] = process
        while running:
            for pipe in multiprocessing.connection.wait(list(running)):
                _receive(pipe, running, results, progress)
    finally:
        for process in running.values():
            process.terminate()
            process.join()
    return results


@contextlib.contextmanager
def _no_interrupt():
    """Ctrl-C waits for the end of this: in the hooks that Python runs around a fork it would be
    reported, ignored, and lost."""
    if not hasattr(signal, "pthread_sigmask"):  # Windows, which does not fork
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGINT])
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _receive(pipe, running, results, progress):
    try:
        kind, content = pipe.recv()
    except EOFError:
        process = running[pipe]
        process.join()
        raise ValueError(
            f"a worker process ended with exit code {process.exitcode} before its work was done (a "
            "negative number is the signal that killed it; 9 is often the system being out of "
            "memory); run the same command again, with fewer --workers if memory is short."
        ) from None
    if kind == "progress":
        progress(content)
    elif kind == "result":
        results[content[0]] = content[1]
    elif kind == "error":
        raise content
    else:
        running.pop(pipe).join()
        pipe.close()


def _work(function, mine, pipe, others, parent):
    """One process: its calls one after another, until they are done or the parent is gone."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the parent, which ends this one
    gc.disable()  # hundreds of thousands of buffers and no cycles: looking for some takes longer
    for other in others:
        other.close()

    def report(amount):
        if os.getppid() != parent:
            os._exit(1)
        pipe.send(("progress", amount))

    try:
        for index, call in mine:
            pipe.send(("result", (index, function(*call, report))))
        pipe.send(("end", None))
    except BaseException as error:
        where = os.path.abspath(traceback.extract_tb(error.__traceback__)[-1].filename)
        ours = isinstance(error, OSError) or where.startswith(ROOT + os.sep)
        if not (ours and isinstance(error, (ValueError, OSError))):
            error = RuntimeError("a worker process failed:\n" + traceback.format_exc())
        pipe.send(("error", error))
