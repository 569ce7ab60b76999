# mmpool_ext: everything a developer runs. STACK=onedl uses the maintained forks instead of the upstream releases, STACK=torch21 those with torch 2.1.
STACK ?= openmmlab
MAX_JOBS ?= $(shell nproc)
export MAX_JOBS

ifeq ($(STACK),openmmlab)
VENV := .venv
else ifeq ($(filter $(STACK),onedl torch21),)
$(error STACK must be openmmlab, onedl or torch21, but got $(STACK))
else
VENV := .venv-$(STACK)
endif
ifeq ($(STACK),torch21)
RELEASES := 3.10
REQUIREMENTS := requirements/torch21.txt
BUILD_REQUIREMENTS := requirements/torch21-build.txt
else
RELEASES := 3.11 3.12
REQUIREMENTS := requirements/$(STACK).txt requirements/dev.txt
BUILD_REQUIREMENTS := requirements/build.txt
endif
# The first Python of these releases that runs: on PATH, or pyenv's, whose python3.10 on PATH runs only where pyenv was told to use it.
PYENV_ROOT ?= $(HOME)/.pyenv
IS_RELEASE = -c 'import sys; sys.exit("%d.%d" % sys.version_info[:2] not in "$(RELEASES)".split())' 2>/dev/null
PYTHON ?= $(shell for python in python3 $(RELEASES:%=python%) $(wildcard $(RELEASES:%=$(PYENV_ROOT)/versions/%.*/bin/python)); do \
  $$python $(IS_RELEASE) && echo $$python && break; done)
RUN := $(VENV)/bin/python
# One thread a process: as many processes as there are cores, four at most, for each holds torch and three codebases.
PYTEST := OMP_NUM_THREADS=1 $(RUN) -m pytest -n auto --maxprocesses 4 --dist loadfile
SOURCES := setup.py pyproject.toml MANIFEST.in $(shell find csrc -type f 2>/dev/null)

.DELETE_ON_ERROR:
.PHONY: help env build demo demo-lip demo-ppool demo-dupsampling demo-pyramid study study-ppool study-ppool-resnet study-dupsampling study-pyramid study-lip study-lip-small pictures test test-slow test-fast test-ops build-cuda lint docs wheel bench clean

help:  ## print this list
	@awk -F':.*## ' '/^[a-z-]+:.*## /{printf "  make %-18s %s\n", $$1, $$2}' $(MAKEFILE_LIST)
	@echo "  STACK=onedl        with any of them: the maintained forks, in .venv-onedl"
	@echo "  STACK=torch21      with any of them: the upstream releases with torch 2.1, in .venv-torch21"

env: $(VENV)/.package  ## set up .venv: the pinned stack and this package (mmcv compiles for some minutes)

# -g0: debug information, which Python's own flags ask for, is nearly half of the time that mmcv's C++ takes to compile.
$(VENV)/.stack: $(BUILD_REQUIREMENTS) $(REQUIREMENTS) requirements/shared.txt
	@python="$(PYTHON)"; python=$${python:-python3}; $$python $(IS_RELEASE) || \
	  { echo "make env: $$python must be Python $(RELEASES), but got $$($$python -V 2>&1); install python$(firstword $(RELEASES)) and its venv, or pass PYTHON=..." >&2; exit 1; }
	@command -v c++ >/dev/null || { echo "make env: a C++ compiler must be on PATH, but c++ was not found; install g++ (build-essential)" >&2; exit 1; }
	@rm -f $@
	$(PYTHON) -m venv $(VENV)
	$(RUN) -m pip install -q -r $(BUILD_REQUIREMENTS)
	@echo "mmcv is compiled from source now, for some minutes unless pip has it in its cache"
	CPPFLAGS="$$CPPFLAGS -g0" $(RUN) -m pip install -q --no-build-isolation $(REQUIREMENTS:%=-r %)
	@touch $@

$(VENV)/.package: $(VENV)/.stack $(SOURCES)
	@rm -f $@
	$(RUN) -m pip install -q --no-build-isolation --no-deps -e .
	@touch $@

build: $(VENV)/.stack  ## compile csrc/ incrementally
	$(RUN) setup.py -q build_ext --inplace

demo: demo-lip demo-ppool demo-dupsampling demo-pyramid  ## train, evaluate and draw on shapes: the main job

demo-lip: env  ## a detector with LIP beside its strided twin
	$(RUN) tools/demo/demo_lip.py

demo-ppool: env  ## a segmentor with P-pooling beside max pooling
	$(RUN) tools/demo/demo_ppool.py

demo-dupsampling: env  ## DUpsampling beside bilinear upsampling of the same features
	$(RUN) tools/demo/demo_dupsampling.py

demo-pyramid: env  ## the pyramid beside a plain head
	$(RUN) tools/demo/demo_pyramid.py

test: env  ## run every test but the slow ones
	$(PYTEST)

test-slow: env  ## run the slow tests: every network through torch.compile and the newer ONNX exporter, a study that is killed
	$(PYTEST) -m slow

test-fast: env  ## run the tests of the files that differ from main (or from BASE=...)
	$(PYTEST) $$($(RUN) tools/misc/changed_tests.py $(or $(BASE),main))

test-ops:  ## run the tests of the ops alone with PYTHON=python3.10 TORCH=2.1.2, in an environment of their own
	python3 tools/misc/ops_matrix.py --python $(PYTHON) --torch $(TORCH) $(if $(QUICK),--quick)

build-cuda: env  ## compile and link the CUDA kernels aside, where nvcc and a CUDA torch are found; no GPU is needed
	$(RUN) tools/misc/build_cuda.py

lint: env  ## check style, imports, formatting and types
	$(RUN) -m ruff check .
	$(RUN) -m ruff format --check .
	$(RUN) -m mypy

study: env  ## train and test every arm of the study on shapes, several seeds each, and write docs/study (hours; resumes)
	$(RUN) tools/study.py $(if $(DRY_RUN),--dry-run)
	$(RUN) tools/misc/write_study.py

study-ppool study-ppool-resnet study-dupsampling study-pyramid study-lip study-lip-small: study-%: env  ## one claim of the study
	$(RUN) tools/study.py $* $(if $(DRY_RUN),--dry-run)
	$(RUN) tools/misc/write_study.py

pictures: env  ## draw the pictures of README and of the pages from the demos' networks
	$(RUN) tools/demo/demo_pictures.py

docs: .venv-docs/.done  ## build the pages in site/, with warnings as errors
	.venv-docs/bin/python -m mkdocs build --strict

.venv-docs/.done: requirements/docs.txt
	$(PYTHON) -m venv .venv-docs
	.venv-docs/bin/python -m pip install -q -r requirements/docs.txt
	@touch $@

wheel: env  ## build wheel and sdist in dist/ (FORCE_CUDA=1: with CUDA kernels, which the version names)
	$(RUN) setup.py -q sdist bdist_wheel

bench: env  ## time the compiled ops against plain PyTorch, torch.compile and a copy
	$(RUN) tools/analysis_tools/benchmark_ops.py

clean:  ## remove what builds and demos made (not the environments)
	rm -rf build dist site work_dirs *.egg-info mmpool_ext/*.so .pytest_cache .ruff_cache .hypothesis
