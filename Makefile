# mmpool_ext: everything a developer runs. STACK=onedl uses the maintained forks instead of the upstream releases.
STACK ?= openmmlab
PYTHON ?= python3
MAX_JOBS ?= $(shell nproc)
export MAX_JOBS

ifeq ($(STACK),openmmlab)
VENV := .venv
else ifeq ($(STACK),onedl)
VENV := .venv-onedl
else
$(error STACK must be openmmlab or onedl, but got $(STACK))
endif
RUN := $(VENV)/bin/python
SOURCES := setup.py pyproject.toml MANIFEST.in $(shell find csrc -type f 2>/dev/null)

.DELETE_ON_ERROR:
.PHONY: help env build demo demo-lip demo-ppool demo-dupsampling demo-pyramid test build-cuda lint bench clean

help:  ## print this list
	@awk -F':.*## ' '/^[a-z-]+:.*## /{printf "  make %-18s %s\n", $$1, $$2}' $(MAKEFILE_LIST)
	@echo "  STACK=onedl        with any of them: the maintained forks, in .venv-onedl"

env: $(VENV)/.package  ## set up .venv: the pinned stack and this package (mmcv compiles for some minutes)

$(VENV)/.stack: requirements/build.txt requirements/shared.txt requirements/$(STACK).txt requirements/dev.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info[:2] not in ((3, 11), (3, 12)))' 2>/dev/null || \
	  { echo "make env: $(PYTHON) must be Python 3.11 or 3.12, but got $$($(PYTHON) -V 2>&1); install python3.11 and python3.11-venv, or pass PYTHON=..." >&2; exit 1; }
	@command -v c++ >/dev/null || { echo "make env: a C++ compiler must be on PATH, but c++ was not found; install g++ (build-essential)" >&2; exit 1; }
	@rm -f $@
	$(PYTHON) -m venv $(VENV)
	$(RUN) -m pip install -q -r requirements/build.txt
	@echo "mmcv is compiled from source now: 6 to 7 minutes on 2 cores unless pip has it in its cache"
	$(RUN) -m pip install -q --no-build-isolation -r requirements/$(STACK).txt -r requirements/dev.txt
	@touch $@

$(VENV)/.package: $(VENV)/.stack $(SOURCES)
	@rm -f $@
	$(RUN) -m pip install -q --no-build-isolation --no-deps -e .
	@touch $@

build: $(VENV)/.stack  ## compile csrc/ incrementally
	$(RUN) setup.py -q build_ext --inplace

demo: demo-lip demo-ppool demo-dupsampling demo-pyramid  ## train, evaluate and draw on shapes: the main job

demo-lip: env  ## a detector with LIP beside its strided twin
	$(RUN) tools/demo_lip.py

demo-ppool: env  ## a segmentor with P-pooling beside max pooling
	$(RUN) tools/demo_ppool.py

demo-dupsampling: env  ## DUpsampling beside bilinear upsampling of the same features
	$(RUN) tools/demo_dupsampling.py

demo-pyramid: env  ## the pyramid beside a plain head
	$(RUN) tools/demo_pyramid.py

test: env  ## run every test
	$(RUN) -m pytest

build-cuda: env  ## compile and link the CUDA kernels aside, where nvcc and a CUDA torch are found; no GPU is needed
	$(RUN) tools/build_cuda.py

lint: env  ## check style, imports and formatting
	$(RUN) -m ruff check .
	$(RUN) -m ruff format --check .

bench: env  ## time the compiled ops against plain PyTorch, torch.compile and a copy
	$(RUN) tools/benchmark_ops.py

clean:  ## remove what builds and demos made (not the environments)
	rm -rf build work_dirs *.egg-info mmpool_ext/*.so .pytest_cache .ruff_cache .hypothesis
