"""One process as a rank: its launcher, its MPI, its guard, its signals."""
