# make demo: the main job on 4 ranks.  make test: the test suite.  Neither needs root.

PYTHON ?= python3
RANKS ?= 4
VENV := .venv
BIN := $(VENV)/bin

# Without these Open MPI refuses root and more ranks than cores; MPICH ignores them.
export OMPI_ALLOW_RUN_AS_ROOT ?= 1
export OMPI_ALLOW_RUN_AS_ROOT_CONFIRM ?= 1
export PRTE_MCA_rmaps_default_mapping_policy ?= :OVERSUBSCRIBE
export PRTE_MCA_rmaps_default_binding_policy ?= none

.PHONY: help demo data test openmpi lint bench clean

help:
	@sed -n 's/^# \(make.*\)/\1/p' Makefile
	@echo "make data | openmpi | lint | bench | clean"

demo: $(VENV)/demo data
	$(BIN)/mpirun -n $(RANKS) $(BIN)/python -m gpumpi.run examples/flights.py

data: $(VENV)/demo
	@$(BIN)/python examples/prepare_data.py

test: $(VENV)/dev
	ci/unit.sh $(VENV)
	ci/ranks.sh $(VENV)

openmpi: .venv-openmpi/dev
	ci/ranks.sh .venv-openmpi

lint: $(VENV)/dev
	ci/lint.sh $(VENV)

bench: $(VENV)/dev
	ci/venv.sh $(VENV) mpich,dev,bench $(PYTHON)
	$(BIN)/python -m benchmarks.run startup

$(VENV)/demo: pyproject.toml
	ci/venv.sh $(VENV) mpich,dashboard,examples $(PYTHON)
	@touch $@

$(VENV)/dev: pyproject.toml
	ci/venv.sh $(VENV) mpich,dev $(PYTHON)
	@touch $@ $(VENV)/demo

.venv-openmpi/dev: pyproject.toml
	ci/venv.sh .venv-openmpi openmpi,dev $(PYTHON)
	@touch $@

clean:
	rm -rf .venv .venv-openmpi build dist *.egg-info examples/data examples/out
