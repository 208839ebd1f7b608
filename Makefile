# A thin layer for those who have make; behind each target is a command that works without it (see README.md).
# All paths may be given absolute or relative to this folder:  make run NB=01 VENV=/tmp/venv OUT=/tmp/out

VENV   ?= .venv
OUT    ?= out
PYTHON ?= python3
NB     ?=

ROOT := $(shell cd "$$(dirname "$(strip $(MAKEFILE_LIST))")" && pwd)
absolute = $(if $(filter /%,$(firstword $(1))),$(1),$(ROOT)/$(1))
VENV_DIR := $(call absolute,$(VENV))
OUT_DIR  := $(call absolute,$(OUT))
PY       := "$(VENV_DIR)/bin/python"
READY    := "$(PYTHON)" "$(ROOT)/tools/ensure_venv.py" --venv "$(VENV_DIR)"

MAKEFLAGS += --no-print-directory
# Nothing is written into the checkout, so that a read-only one works.
export PYTHONDONTWRITEBYTECODE := 1
export RUFF_CACHE_DIR := $(OUT_DIR)/.ruff_cache
export HYPOTHESIS_STORAGE_DIRECTORY := $(OUT_DIR)/.hypothesis

.PHONY: help run lab test notebooks claims site check clean
.DEFAULT_GOAL := help

help: ## this list
	@sed -n 's/^\([a-z]*\):.*## /\1\t/p' "$(ROOT)/Makefile" | expand -t 12

run: ## run the notebooks into OUT (all, or NB=01, NB=clip, NB="01 02")
	@$(READY)
	@cd "$(ROOT)" && $(PY) -m minivlm run $(NB) --out "$(OUT_DIR)"

lab: ## open JupyterLab at the first notebook
	@$(READY)
	@cd "$(ROOT)" && $(PY) -m minivlm lab

test: ## every test: package, parity, notebooks, README
	@$(READY) test
	@cd "$(ROOT)" && OMP_NUM_THREADS=1 $(PY) -m pytest -n 2 --nbval -o cache_dir="$(OUT_DIR)/.pytest_cache" notebooks tests

notebooks: ## rebuild the notebooks whose sources changed (all, or NB=01)
	@$(READY) site
	@cd "$(ROOT)" && $(PY) -m minivlm build $(NB)

claims: ## run the notebooks over five seeds, all arms, and keep the rows in results/ (all, or NB=01); go on after a stop
	@$(READY) site
	@cd "$(ROOT)" && $(PY) -m minivlm claims $(NB)

site: ## the notebooks as web pages, into OUT/site
	@$(READY) site
	@cd "$(ROOT)" && $(PY) -m minivlm site --out "$(OUT_DIR)/site"

check: ## seconds, once installed: are sources, package and notebooks in step; ruff
	@$(READY) test
	@cd "$(ROOT)" && $(PY) -m minivlm build --check $(NB)
	@cd "$(ROOT)" && $(PY) -m ruff check .

clean: ## remove what was written into OUT (the virtual environment stays)
	@"$(PYTHON)" "$(ROOT)/tools/clean.py" "$(OUT_DIR)"
