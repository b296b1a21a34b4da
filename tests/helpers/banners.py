"""What the launchers themselves write when a job goes wrong."""

from __future__ import annotations

import re

OPENMPI_BLOCK = re.compile(
    # Open MPI's help messages, between two lines of dashes: "prterun noticed
    # that process rank 1 ... exited on signal 9", "prterun detected that one or
    # more processes exited with non-zero status", "MPI_ABORT was invoked on
    # rank 0". Blocks in which Open MPI does not name itself are a program's own.
    r"^-{60,}\n"
    r"(?=(?:(?!-{60,}).*\n){0,40}?(?!-{60,}).*"
    r"(?:prterun|prted|PRTE|PMIx|mpirun|mpiexec|MPI_ABORT|MPI_INIT|Open MPI))"
    r"(?:(?!-{60,}).*\n){1,40}"
    r"^-{60,}\n"
    # After the block about MPI_ABORT there is an empty line.
    r"(?:^\n)?",
    re.MULTILINE,
)

MPICH_BLOCK = re.compile(
    # MPICH's "BAD TERMINATION OF ONE OF YOUR APPLICATION PROCESSES" with the
    # process, host and exit code, between lines of equal signs and after an
    # empty line. It goes to stdout.
    r"(?:^\n)?^={60,}\n(?:^=   .*\n)+?^={60,}\n",
    re.MULTILINE,
)

LINES = re.compile(
    r"^(?:"
    # MPICH, after the block above: which signal it was, and where to read on.
    r"YOUR APPLICATION TERMINATED WITH THE EXIT STRING: .*"
    r"|This typically refers to a problem with your application\."
    r"|Please see the FAQ page for debugging suggestions"
    # MPICH, in the process that calls MPI_Abort, to stderr. The same words
    # about another error go on with "Fatal error in", and stay.
    r"|Abort\(-?\d+\) on node \d+ .*: application called MPI_Abort\(.*"
    # MPICH's mpiexec and its proxies about themselves: "[mpiexec@host] Sending
    # Ctrl-C to processes as requested" goes to stdout, the others to stderr.
    r"|\[(?:mpiexec|proxy:[^\]\n]*)@[^\]\n]*\] .*"
    # Open MPI, on a second signal to mpirun, with an empty line after it.
    r"|Abort is in progress\.\.\.hit ctrl-c again to forcibly terminate\n"
    # Open MPI's runtime about itself: "[host:1234] PMIX ERROR: ...".
    r"|\[[\w.-]+:\d+\] .*"
    r")(?:\n|\Z)",
    re.MULTILINE,
)


def strip_banners(text: str) -> str:
    """`text` without what mpirun and the MPI library wrote into it.

    Launchers pass on the output of ranks in pieces. A piece that falls into
    the middle of one of Open MPI's blocks is lost with it.
    """
    # Open MPI ends its message about MPI_ABORT with a NUL.
    text = text.replace("\0", "")
    for pattern in (OPENMPI_BLOCK, MPICH_BLOCK, LINES):
        text = pattern.sub("", text)
    return text
