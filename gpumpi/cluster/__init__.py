"""From ranks to one Dask cluster: start, verdicts, workers, scheduler, end."""
