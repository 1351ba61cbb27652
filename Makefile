# `make demo` hears a clip, `make test` checks everything; both first set up what is missing.

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help demo setup test board test-arm litert executorch targets soak lint format clean

PYTHON ?= python3
VENV := .venv
LITERT_VENV := .venv-litert
EXECUTORCH_VENV := .venv-executorch
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check
CLIP := edgeasr/models/demo.flac

# Debian's packages: what the product needs (without a compiler it is slower), and what the tests need beside it (speech, a virtual microphone, a browser).
PACKAGES := libportaudio2 gcc libc6-dev
TEST_PACKAGES := $(if $(PACKAGES),espeak-ng flite libasound2-plugins pulseaudio pulseaudio-utils \
    chromium chromium-driver shellcheck)
# Compilers and an emulator for the firmware. What is missing of them is skipped by the tests.
FIRMWARE_PACKAGES := $(if $(PACKAGES),gcc g++ libc6-dev make clang libclang-rt-dev gcovr gcc-arm-none-eabi \
    libnewlib-arm-none-eabi gcc-riscv64-unknown-elf picolibc-riscv64-unknown-elf qemu-system-arm)
# Roots of boards, what emulates their processors, and a compiler for these.
ARM_PACKAGES := $(if $(PACKAGES),mmdebstrap qemu-user-static gcc-aarch64-linux-gnu libc6-dev-arm64-cross)
VENV_PACKAGE := $(if $(PACKAGES),python3-venv)

# A build of PyTorch without CUDA: only those have versions that end in +cpu.
TORCH := torch==2.13.0+cpu
TORCH_INDEX := https://download.pytorch.org/whl/cpu

# Each runs whatever became of those before it.
SOAKS := soak soak_memory soak_live soak_microphone soak_rates kill_store kill_service service_under_systemd soak_serve \
    soak_wyoming

help: ## say what there is to make
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "make %-8s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

demo: $(VENV)/demo-is-set-up ## set up what a board needs and transcribe the bundled clip
	@echo '$$ $(BIN)/edgeasr transcribe $(CLIP)'
	@$(BIN)/edgeasr transcribe $(CLIP)
	@echo 'Now speak into the microphone: $(BIN)/edgeasr listen'

setup: $(VENV)/tests-are-set-up ## set up what development and the tests need

test: lint board ## check style and types, then run all tests
	$(BIN)/pytest

# Some megabytes, once: with them the tests hear speech on emulated cores of 64 bits, and run C for these.
board: $(VENV)/tests-are-set-up
	@{ .ci/apt-install $(ARM_PACKAGES) && timeout 600 $(BIN)/python tests/emulated_board.py bookworm-arm64; } || \
	    echo 'Tests on emulated Arm cores will be skipped' >&2

test-arm: $(VENV)/tests-are-set-up ## install and hear speech on emulated Cortex-A7, A53, A72 and A76 cores
	@.ci/apt-install $(ARM_PACKAGES)
	$(BIN)/python tests/emulated_board.py
	$(BIN)/pytest tests/test_arm.py --junit-xml=$(VENV)/boards/heard.xml

targets: $(VENV)/tests-are-set-up ## export every target, hear dev with each and write docs/targets.md (LIMIT=20: only print it)
	$(BIN)/python tests/targets.py $(if $(LIMIT),--limit $(LIMIT))

litert: $(LITERT_VENV)/is-set-up ## set up what `edgeasr export` needs for LiteRT, apart from the rest (2 GB)

executorch: $(EXECUTORCH_VENV)/is-set-up ## set up what `edgeasr export` needs for ExecuTorch, apart from the rest (2 GB)

soak: $(VENV)/tests-are-set-up ## hours of speech in one go, and hundreds of kills: memory, speed, what is kept
	@failed=; for script in $(SOAKS); do \
	    echo "tests/$$script.py"; $(BIN)/python tests/$$script.py || failed+=" $$script"; \
	done; [ -z "$$failed" ] || { echo "out of bounds:$$failed" >&2; exit 1; }

lint: $(VENV)/tests-are-set-up ## check style and types
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy

format: $(VENV)/tests-are-set-up ## bring the code into style
	$(BIN)/ruff check --fix
	$(BIN)/ruff format

# litert-torch brings JAX and transformers along, and wants other versions than the rest.
$(LITERT_VENV)/is-set-up: pyproject.toml Makefile | $(BIN)/python
	$(PYTHON) -m venv $(LITERT_VENV)
	$(LITERT_VENV)/bin/python -m pip install --quiet $(TORCH) 2>/dev/null || \
	    $(LITERT_VENV)/bin/python -m pip install --extra-index-url $(TORCH_INDEX) $(TORCH)
	$(LITERT_VENV)/bin/python -m pip install --quiet --constraint <(echo $(TORCH)) --editable '.[litert-export]'
	@touch $@

# executorch brings pandas, scikit-learn and coremltools along.
$(EXECUTORCH_VENV)/is-set-up: pyproject.toml Makefile | $(BIN)/python
	$(PYTHON) -m venv $(EXECUTORCH_VENV)
	$(EXECUTORCH_VENV)/bin/python -m pip install --quiet $(TORCH) 2>/dev/null || \
	    $(EXECUTORCH_VENV)/bin/python -m pip install --extra-index-url $(TORCH_INDEX) $(TORCH)
	$(EXECUTORCH_VENV)/bin/python -m pip install --quiet --constraint <(echo $(TORCH)) --editable '.[executorch-export]'
	@touch $@

clean: ## remove the environment and whatever else was made
	rm -rf $(VENV) $(LITERT_VENV) $(EXECUTORCH_VENV) build dist *.egg-info .hypothesis .mypy_cache .pytest_cache .ruff_cache
	find . -name __pycache__ -prune -exec rm -r {} +

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	    { echo 'edgeasr needs Python 3.11 or newer: run make with PYTHON=python3.11' >&2; exit 1; }
	@$(PYTHON) -c 'import ensurepip' 2>/dev/null || .ci/apt-install $(VENV_PACKAGE)
	$(PYTHON) -m venv $(VENV)

$(VENV)/demo-is-set-up: pyproject.toml | $(BIN)/python
	@.ci/apt-install $(PACKAGES)
	$(PIP) install --quiet --editable .
	@touch $@

# The wheelhouse lets a test install the package into an empty environment without a network; the links let mypy
# find edgeasr.converters and its like.
$(VENV)/tests-are-set-up: pyproject.toml Makefile | $(BIN)/python
	@.ci/apt-install $(PACKAGES) $(TEST_PACKAGES)
	@.ci/apt-install $(FIRMWARE_PACKAGES) || echo 'Tests of the firmware that need these packages will be skipped' >&2
	$(PIP) install --quiet $(TORCH) 2>/dev/null || $(PIP) install --extra-index-url $(TORCH_INDEX) $(TORCH)
	$(PIP) install --quiet --constraint <(echo $(TORCH)) --editable '.[dev]'
	$(PIP) download --quiet --dest $(VENV)/wheelhouse .
	@mkdir -p $(VENV)/typing/edgeasr
	@ln -sfn -t $(VENV)/typing/edgeasr $(CURDIR)/{converters,devices,firmware_bridge}
	@touch $@
