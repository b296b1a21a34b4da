"""What the processes of a hung job are doing."""

from __future__ import annotations

import contextlib
import shutil
import signal
import subprocess
import time
from pathlib import Path

import psutil

from helpers.launcher import BIN
from helpers.processes import GONE, describe, is_python


def find_py_spy() -> str | None:
    """Program py-spy, of this virtual environment if it has it, or None."""
    return shutil.which("py-spy", path=str(BIN)) or shutil.which("py-spy")


def show_python_stack(pid: int, program: str, timeout: float = 15) -> str:
    """Python stack of a process by py-spy."""
    words = [program, "dump", "--pid", str(pid)]
    if psutil.Process(pid).status() == psutil.STATUS_STOPPED:
        # py-spy would wait for ever for a stopped process to pause.
        words.append("--nonblocking")
    try:
        done = subprocess.run(
            words, capture_output=True, text=True, timeout=timeout, check=False
        )
    except subprocess.TimeoutExpired:
        return f"(py-spy found nothing in {timeout:g} s)"
    lines = (done.stdout or done.stderr).splitlines()
    # The first lines repeat the command and the version of Python.
    return "\n".join(line for line in lines if line.startswith((" ", "Thread", "Err")))


def show_kernel_stack(pid: int) -> str:
    """Where each thread of a process waits in the kernel."""
    lines = []
    for task in sorted(Path(f"/proc/{pid}/task").iterdir()):
        with contextlib.suppress(OSError):
            lines.append(f"task {task.name} in {(task / 'wchan').read_text()}")
            lines += (task / "stack").read_text().splitlines()
    return "\n".join(lines)


def abort_python(processes: list[psutil.Process]) -> None:
    """Have the faulthandler of each Python process write its stack to stderr.

    The launcher pauses meanwhile: it would kill the others after the first.
    """
    ranks = [process for process in processes if is_python(process)]
    others = [process for process in processes if process not in ranks]
    numbers = [(others, signal.SIGSTOP), (ranks, signal.SIGABRT)]
    numbers += [(ranks, signal.SIGCONT), (others, signal.SIGCONT)]
    for group, number in numbers:
        for process in group:
            with contextlib.suppress(*GONE):
                process.send_signal(number)
        if number == signal.SIGCONT:
            # For ranks to write, and for launchers to pass it on.
            time.sleep(0.5)


def show_stacks(processes: list[psutil.Process]) -> str:
    """What each process of a job does: a line each, and stacks of Python ones.

    Other processes, and all of them without py-spy, are shown with where they
    wait in the kernel. Without py-spy, each Python process gets SIGABRT in the
    end, so that its faulthandler, which the job switched on, writes to stderr.
    """
    program = find_py_spy()
    parts = []
    for process in processes:
        parts.append(describe(process))
        with contextlib.suppress(*GONE):
            if program and is_python(process):
                stack = show_python_stack(process.pid, program)
            else:
                stack = show_kernel_stack(process.pid)
            parts += [f"    {line}" for line in stack.splitlines()]
    if program is None:
        abort_python(processes)
    return "\n".join(parts) or "(no process is left)"
