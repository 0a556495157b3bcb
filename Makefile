# make test    ruff, mypy, pyright, pytest
# make demo    adapts and trains a pretrained sentence encoder, and shows what it did
# Both make their own virtual environment in .venv on the first run and install there. Python ≥ 3.10 is all they need.

# The first Python on the path that is new enough; PYTHON=… chooses another.
PYTHON ?= $(shell for p in python3 python3.13 python3.12 python3.11 python3.10; do \
	$$p -c 'import sys; sys.exit(sys.version_info < (3, 10))' 2>/dev/null && { echo $$p; break; }; done)
# Installed before everything else, so that nothing pulls another build. It goes to pip as it stands: with the index of
# the CPU builds (TORCH="torch==2.13.0 --index-url …") the install is gigabytes smaller on Linux.
TORCH ?= torch==2.13.0
# Two test processes, one thread each.
JOBS ?= 2

VENV := .venv
PY := $(VENV)/bin/python

.PHONY: test demo lint types unit clean

test: lint types unit

lint: $(VENV)/test.stamp
	$(PY) -m ruff check .

types: $(VENV)/test.stamp
	$(PY) -m mypy
	$(PY) -m pyright --pythonpath $(PY)

unit: $(VENV)/test.stamp
	$(PY) -m pytest -n $(JOBS) -q

demo: $(VENV)/demo.stamp
	$(VENV)/bin/padp demo

$(VENV)/torch.stamp:
	@test -n "$(PYTHON)" || { echo "padp needs Python 3.10 or newer: none on the path. Name one: make PYTHON=/path/to/python3"; exit 1; }
	@echo "Installing $(TORCH) into $(VENV), once"
	@$(PYTHON) -m venv $(VENV)
	@$(PY) -m pip install -qq $(TORCH)
	@touch $@

$(VENV)/%.stamp: pyproject.toml | $(VENV)/torch.stamp
	@echo "Installing padp with what its $* needs into $(VENV), once"
	@$(PY) -m pip install -qq --editable '.[$*]'
	@touch $@

clean:
	rm -rf $(VENV) build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis
