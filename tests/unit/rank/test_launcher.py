"""What launchers leave in the environment of a rank.

MPICH 5.0.2 and Open MPI 5.0.11: recorded on this project's machine with
``mpirun -n 2 env``. Slurm: recorded at Open MPI's ``orte/mca/ess/slurmd`` (a step)
and in public job logs (an interactive shell, whose step is 4294967290). PALS: what
its ``mpiexec`` sets; ``PALS_NRANKS`` is among what it reads, as the default of
``-n``. Intel MPI and MVAPICH: their documentation, with Hydra's common variables.
"""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpumpi.errors import LauncherMismatchError
from gpumpi.rank.launcher import (
    Launcher,
    LauncherName,
    check_library,
    check_world_size,
    is_launcher_variable,
    read_launcher,
    short_library,
)

MPICH = {
    "GFORTRAN_UNBUFFERED_PRECONNECTED": "y",
    "HYDI_CONTROL_FD": "7",
    "MPI_LOCALNRANKS": "2",
    "MPI_LOCALRANKID": "1",
    "PMI_FD": "9",
    "PMI_HOSTNAME": "vm",
    "PMI_RANK": "3",
    "PMI_SIZE": "4",
}
OPEN_MPI = {
    "OMPI_COMMAND": "python",
    "OMPI_COMM_WORLD_LOCAL_RANK": "1",
    "OMPI_COMM_WORLD_LOCAL_SIZE": "2",
    "OMPI_COMM_WORLD_NODE_RANK": "1",
    "OMPI_COMM_WORLD_RANK": "3",
    "OMPI_COMM_WORLD_SIZE": "4",
    "OMPI_FILE_LOCATION": "/tmp/ompi.23476/1/1",
    "OMPI_UNIVERSE_SIZE": "4",
    "PMIX_NAMESPACE": "prterun-vm-23476@1",
    "PMIX_RANK": "3",
    "PMIX_SERVER_TMPDIR": "/tmp/ompi.23476",
    "PRTE_LAUNCHED": "1",
}
INTEL = {
    "I_MPI_MPIRUN": "mpirun",
    "I_MPI_HYDRA_TOPOLIB": "hwloc",
    "I_MPI_ROOT": "/opt/intel/oneapi/mpi/2021.14",
    "HYDI_CONTROL_FD": "7",
    "MPI_LOCALNRANKS": "2",
    "MPI_LOCALRANKID": "1",
    "PMI_FD": "9",
    "PMI_RANK": "3",
    "PMI_SIZE": "4",
}
MVAPICH = {
    "MV2_COMM_WORLD_LOCAL_RANK": "1",
    "MV2_COMM_WORLD_LOCAL_SIZE": "2",
    "MV2_COMM_WORLD_RANK": "3",
    "MV2_COMM_WORLD_SIZE": "4",
    "PMI_ID": "3",
    "PMI_PORT": "login1:41234",
}
PALS = {
    "PALS_APID": "e2b6a2f2-5b0c-4d3c-9c57-1a86c8a5c0ff",
    "PALS_LOCAL_RANKID": "1",
    "PALS_LOCAL_SIZE": "2",
    "PALS_NODEID": "1",
    "PALS_RANKID": "3",
    "PMI_LOCAL_RANK": "1",
    "PMI_LOCAL_SIZE": "2",
    "PMI_RANK": "3",
    "PMI_SIZE": "4",
}
#: In every process of an allocation, whoever started it.
ALLOCATION = {
    "SLURM_CPUS_ON_NODE": "4",
    "SLURM_JOBID": "38749",
    "SLURM_JOB_ID": "38749",
    "SLURM_JOB_NODELIST": "odin[097-098]",
    "SLURM_JOB_NUM_NODES": "2",
    "SLURM_NNODES": "2",
    "SLURM_NPROCS": "4",
    "SLURM_NTASKS": "4",
    "SLURM_TASKS_PER_NODE": "2(x2)",
}
STEP = ALLOCATION | {
    "SLURM_GTIDS": "2,3",
    "SLURM_LOCALID": "1",
    "SLURM_NODEID": "1",
    "SLURM_PROCID": "3",
    "SLURM_STEPID": "1",
    "SLURM_STEP_ID": "1",
    "SLURM_STEP_NUM_NODES": "2",
    "SLURM_STEP_NUM_TASKS": "4",
    "SLURM_STEP_TASKS_PER_NODE": "2(x2)",
}
#: What slurmd gives to the batch script itself: it is task 0 of nothing.
BATCH = ALLOCATION | {
    "ENVIRONMENT": "BATCH",
    "SLURM_GTIDS": "0",
    "SLURM_LOCALID": "0",
    "SLURM_NODEID": "0",
    "SLURM_PROCID": "0",
    "SLURM_TASK_PID": "5528",
}
SHELL = BATCH | {
    "SLURM_STEPID": "4294967290",
    "SLURM_STEP_ID": "4294967290",
    "SLURM_STEP_NUM_NODES": "1",
    "SLURM_STEP_NUM_TASKS": "1",
}
BATCH_STEP = BATCH | {"SLURM_STEP_ID": "4294967291", "SLURM_STEP_NUM_TASKS": "1"}
LOGIN = {"PATH": "/usr/bin", "HOME": "/home/u", "I_MPI_ROOT": "/opt/intel"}

FOURTH_OF_FOUR = {"rank": 3, "size": 4, "local_rank": 1, "local_size": 2}


@pytest.mark.parametrize(
    ("environment", "name", "evidence"),
    [
        (MPICH, LauncherName.MPICH, "HYDI_CONTROL_FD"),
        (OPEN_MPI, LauncherName.OPEN_MPI, "OMPI_COMM_WORLD_SIZE"),
        (INTEL, LauncherName.INTEL, "I_MPI_MPIRUN"),
        (MVAPICH, LauncherName.MVAPICH, "MV2_COMM_WORLD_SIZE"),
        (PALS, LauncherName.PALS, "PALS_RANKID"),
    ],
    ids=["mpich", "openmpi", "intel", "mvapich", "pals"],
)
def test_a_launcher_is_recognised_with_all_its_numbers(
    environment, name, evidence
) -> None:
    found = read_launcher(environment)
    assert found == Launcher(name=name, evidence=evidence, **FOURTH_OF_FOUR)


def test_what_pals_reads_as_its_default_is_not_its_number_of_ranks() -> None:
    # A job script may export PALS_NRANKS=8 and start mpiexec -n 4.
    assert read_launcher(PALS | {"PALS_NRANKS": "8"}).size == 4


def test_a_hydra_that_says_no_more_than_pmi_is_mpich() -> None:
    found = read_launcher({"PMI_RANK": "1", "PMI_SIZE": "2", "PMI_FD": "5"})
    assert found == Launcher(
        name=LauncherName.MPICH, rank=1, size=2, evidence="PMI_SIZE"
    )


def test_a_step_of_slurm_has_no_local_size() -> None:
    assert read_launcher(STEP) == Launcher(
        name=LauncherName.SLURM,
        rank=3,
        size=4,
        local_rank=1,
        local_size=None,
        evidence="SLURM_STEP_ID",
    )


@pytest.mark.parametrize(
    "pmi",
    [
        {"PMI_RANK": "3", "PMI_SIZE": "4", "PMI_FD": "12", "PMI_JOBID": "38749.1"},
        {"PMIX_RANK": "3", "PMIX_NAMESPACE": "slurm.pmix.38749.1"},
    ],
    ids=["pmi2", "pmix"],
)
def test_a_step_of_slurm_is_slurms_whatever_pmi_it_offers(pmi) -> None:
    found = read_launcher(STEP | pmi)
    assert (found.name, found.rank, found.size) == (LauncherName.SLURM, 3, 4)


@pytest.mark.parametrize(
    "environment",
    [{}, LOGIN, ALLOCATION, BATCH, BATCH_STEP, SHELL],
    ids=["empty", "login", "salloc", "batch", "batch step", "interactive step"],
)
def test_where_nobody_started_ranks_there_is_no_launcher(environment) -> None:
    assert read_launcher(environment) == Launcher(name=LauncherName.NONE)
    assert read_launcher(environment).size == 1


@pytest.mark.parametrize("slurm", [ALLOCATION, BATCH, BATCH_STEP, SHELL, STEP])
@pytest.mark.parametrize("mpi", [MPICH, OPEN_MPI, INTEL, MVAPICH, PALS])
def test_mpirun_inside_an_allocation_goes_before_slurm(slurm, mpi) -> None:
    # Hydra and PRRTE start their proxies by srun, so a real step is around them.
    assert read_launcher(slurm | mpi) == read_launcher(mpi)


def test_variables_without_numbers_are_no_launcher() -> None:
    environment = {"OMPI_COMM_WORLD_SIZE": "", "PMI_SIZE": "two", "PMI_RANK": "0"}
    assert read_launcher(environment).name is LauncherName.NONE


def test_the_environment_of_this_process_is_read(monkeypatch) -> None:
    for name in MPICH | OPEN_MPI | STEP:
        monkeypatch.delenv(name, raising=False)
    assert read_launcher().name is LauncherName.NONE
    for name, value in MPICH.items():
        monkeypatch.setenv(name, value)
    assert read_launcher() == read_launcher(MPICH)


@given(st.integers(0, 10**6), st.integers(1, 10**6))
def test_rank_and_size_are_what_hydra_wrote(rank, size) -> None:
    found = read_launcher(MPICH | {"PMI_RANK": str(rank), "PMI_SIZE": str(size)})
    assert (found.rank, found.size) == (rank, size)


@given(
    st.dictionaries(
        st.sampled_from(sorted(MPICH | OPEN_MPI | MVAPICH | PALS | STEP)),
        st.text(max_size=3),
    )
)
def test_no_environment_is_too_odd_to_be_read(environment) -> None:
    assert read_launcher(environment).size >= 0


# ------------------------------------------------------------- who speaks first


@pytest.mark.parametrize(
    ("rank", "local_rank", "speaks"),
    [(0, 0, True), (5, 0, True), (5, 1, False), (0, None, True), (5, None, False)],
)
def test_the_first_rank_of_each_host_speaks(rank, local_rank, speaks) -> None:
    launcher = Launcher(
        name=LauncherName.MPICH, rank=rank, size=9, local_rank=local_rank
    )
    assert launcher.speaks_first is speaks


# ---------------------------------------------------------- library and launcher

LIBRARIES = {
    LauncherName.MPICH: "MPICH Version:      5.0.2\nMPICH Release date: Fri Sep 25",
    LauncherName.OPEN_MPI: "Open MPI v5.0.11, package: Open MPI user@localhost",
    LauncherName.INTEL: "Intel(R) MPI Library 2021.14 for Linux* OS\n",
    LauncherName.MVAPICH: "MVAPICH2 Version      :\t2.3.7",
}
SHORT = {
    LauncherName.MPICH: "MPICH 5.0.2",
    LauncherName.OPEN_MPI: "Open MPI v5.0.11",
    LauncherName.INTEL: "Intel(R) MPI Library 2021.14",
    LauncherName.MVAPICH: "MVAPICH2 2.3.7",
}
ENVIRONMENTS = {
    LauncherName.MPICH: MPICH,
    LauncherName.OPEN_MPI: OPEN_MPI,
    LauncherName.INTEL: INTEL,
    LauncherName.MVAPICH: MVAPICH,
    LauncherName.PALS: PALS,
    LauncherName.SLURM: STEP,
    LauncherName.NONE: {},
}
PAIRS = [(launcher, library) for launcher in ENVIRONMENTS for library in LIBRARIES]


def is_foreign(launcher: LauncherName, library: LauncherName) -> bool:
    """Slurm and PALS serve several; Open MPI serves itself, Hydra all the others."""
    if launcher in (LauncherName.SLURM, LauncherName.PALS, LauncherName.NONE):
        return False
    return (launcher is LauncherName.OPEN_MPI) != (library is LauncherName.OPEN_MPI)


@pytest.mark.parametrize("library", LIBRARIES)
def test_a_library_is_named_by_its_name_and_version(library) -> None:
    assert short_library(LIBRARIES[library]) == SHORT[library]


@pytest.mark.parametrize(
    ("launcher", "library"), [pair for pair in PAIRS if not is_foreign(*pair)]
)
def test_a_library_that_the_launcher_may_serve_is_taken(launcher, library) -> None:
    check_library(read_launcher(ENVIRONMENTS[launcher]), LIBRARIES[library])


@pytest.mark.parametrize(
    ("launcher", "library"), [pair for pair in PAIRS if is_foreign(*pair)]
)
def test_a_library_of_another_launcher_is_refused_with_both_names(
    launcher, library
) -> None:
    found = read_launcher(ENVIRONMENTS[launcher])
    with pytest.raises(LauncherMismatchError) as caught:
        check_library(found, LIBRARIES[library])
    text = str(caught.value)
    assert f"mpi4py loads {short_library(LIBRARIES[library])};" in text
    assert f"{launcher} ({found.evidence}) started 4 rank(s)" in text
    assert "Next: use the mpirun of the same MPI" in text


@pytest.mark.parametrize("launcher", ENVIRONMENTS)
def test_a_world_as_large_as_the_launchers_is_taken(launcher) -> None:
    found = read_launcher(ENVIRONMENTS[launcher])
    check_world_size(found, found.size, "MPICH Version: 5.0.2")


def test_a_world_of_one_under_a_launcher_of_four_is_refused_with_both() -> None:
    with pytest.raises(LauncherMismatchError) as caught:
        check_world_size(read_launcher(STEP), 1, LIBRARIES[LauncherName.OPEN_MPI])
    text = str(caught.value)
    assert "mpi4py loads Open MPI v5.0.11, whose world has 1 rank(s);" in text
    assert "Slurm (SLURM_STEP_ID) started 4 rank(s)" in text


def test_without_a_launcher_any_world_is_taken() -> None:
    check_world_size(Launcher(name=LauncherName.NONE), 7, "MPICH")


# ------------------------------------------------------------------- children


@pytest.mark.parametrize(
    "environment", [MPICH, OPEN_MPI, INTEL, MVAPICH, PALS, STEP], ids=str
)
def test_without_the_launchers_variables_a_child_is_no_rank(environment) -> None:
    kept = {k: v for k, v in environment.items() if not is_launcher_variable(k)}
    assert read_launcher(kept).name is LauncherName.NONE


@pytest.mark.parametrize(
    "name",
    ["PMI_FD", "PMIX_NAMESPACE", "PRTE_LAUNCHED", "MPI_LOCALRANKID", "SLURM_PROCID"],
)
def test_what_an_mpi_library_finds_its_launcher_by_is_the_launchers(name) -> None:
    assert is_launcher_variable(name)


@pytest.mark.parametrize(
    "name",
    ["PATH", "HOME", "SLURM_JOB_ID", "MPICH_VERSION", "UCX_TLS", "PMI", "MPI_HOME"],
)
def test_other_variables_are_kept_for_children(name) -> None:
    assert not is_launcher_variable(name)
