# Every target sets up what it needs in .venv by itself; PYTHON chooses the interpreter for it.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
LEGACY := .venv-tflite-runtime
MICRO := .venv-tflite-micro
LOWEST := .venv-lowest
LOWEST_TESTS := $(addprefix tests/export/test_,keras2.py keras_files.py read_keras.py untrusted.py onnx.py tflite.py zoo.py) \
	tests/attacks/test_artifacts.py
# Three workers for two cores, since some tests wait for programs, where the run is long enough to gain by it.
# Whole files to each worker, which share their models, in the order of tests/conftest.py.
BY_FILE := --dist loadfile --no-loadscope-reorder
# What the extension module is built from: an editable install does not see that these have changed.
ENGINE := setup.py $(wildcard runtime/*.c runtime/engine/*.[ch])

.PHONY: demo test test-engine test-lowest test-fast test-devices wheels build-wheels fuzz lint format clean

demo: $(VENV)/.toolkit
	$(BIN)/edgelstm demo

test: lint $(VENV)/.dev $(LEGACY)/.ready $(MICRO)/.ready
	$(BIN)/python -m pytest -n 3 $(BY_FILE) -m "not engine and not devices"

# The engine and folders of C by several compilers, with sanitizers, fuzzed, as a library, and over ten million steps.
test-engine: $(VENV)/.dev
	$(BIN)/python -m pytest -n 2 $(BY_FILE) -m "engine and not devices"

# Reading and export with the lowest version of every dependency that pyproject.toml allows.
test-lowest: $(LOWEST)/.ready
	if test -x $(LOWEST)/bin/python; then $(LOWEST)/bin/python -m pytest -n 2 $(BY_FILE) -q -m "not slow and not engine" $(LOWEST_TESTS); fi

test-fast: $(VENV)/.dev
	$(BIN)/python -m pytest -n 2 $(BY_FILE) -m "not slow and not engine and not devices" -q

# Wheels of the runtime for boards, into dist, each run in a userland of its processor. Takes Debian's cross compilers,
# QEMU and mmdebstrap: .ci/system-packages.
wheels: build-wheels
	$(BIN)/python -m pytest -n 2 -m devices tests/devices/test_wheels.py tests/devices/test_armv6.py

build-wheels: $(VENV)/.dev
	$(BIN)/python -m edgelstm.devices.wheels dist

# The same, and deployments to emulated boards with sshd.
test-devices: build-wheels
	$(BIN)/python -m pytest -n 2 -m devices

# What make test does for seconds: the engine with sanitizers, and what Python reads.
EDGELSTM_FUZZ_SECONDS ?= 600
fuzz: $(VENV)/.dev
	EDGELSTM_FUZZ_SECONDS=$(EDGELSTM_FUZZ_SECONDS) $(BIN)/python -m pytest tests/engine/test_fuzz.py tests/attacks/test_fuzz.py -s

lint: $(VENV)/.dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pyright

format: $(VENV)/.dev
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean:
	rm -rf $(VENV) $(LEGACY) $(MICRO) $(LOWEST) runtime/*.so build dist *.egg-info .pytest_cache .ruff_cache demo-output .userlands .node

$(VENV)/bin/python:
	$(PYTHON) -m venv $(VENV)

$(VENV)/.toolkit: $(VENV)/bin/python pyproject.toml $(ENGINE)
	$(BIN)/pip install --quiet --editable ".[toolkit]"
	touch $@

$(VENV)/.dev: $(VENV)/bin/python pyproject.toml $(ENGINE)
	$(BIN)/pip install --quiet --editable ".[dev]"
	touch $@ $(VENV)/.toolkit

# The oldest runtime that exported files must run on, beside an installation as on a device: the runtime's own
# dependencies and nothing else. It exists for Python ≤ 3.11 and NumPy 1 only, so it gets an environment of its own;
# without such a Python its tests are skipped and say so.
$(LEGACY)/.ready: pyproject.toml $(ENGINE)
	if python3.11 -c "" 2>/dev/null; then \
		python3.11 -m venv $(LEGACY) && \
		$(LEGACY)/bin/pip install --quiet --editable . "tflite-runtime==2.14.0" "numpy<2"; \
	else mkdir -p $(LEGACY); fi
	touch $@

# TensorFlow Lite Micro's interpreter, by itself. Its package has wheels for Linux on x86-64 only; elsewhere its tests are
# skipped and say so.
$(MICRO)/.ready: Makefile
	$(PYTHON) -m venv $(MICRO)
	if $(MICRO)/bin/pip install --quiet "tflite-micro==0.dev20261023182759"; then touch $@; fi

# Python 3.11 is the lowest too; without one, these tests are left out as well.
$(LOWEST)/.ready: pyproject.toml .ci/lowest_versions.py $(ENGINE)
	if python3.11 -c "" 2>/dev/null; then \
		python3.11 -m venv $(LOWEST) && \
		python3.11 .ci/lowest_versions.py > $(LOWEST)/constraints.txt && \
		$(LOWEST)/bin/pip install --quiet -c $(LOWEST)/constraints.txt --editable ".[toolkit]" pytest pytest-xdist; \
	else mkdir -p $(LOWEST); fi
	touch $@
