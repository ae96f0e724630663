# Everything a fresh machine needs: `make demo` and `make test` set up .venv by themselves.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
# Two sets of packages in one environment: what deploys, and what tests and lints too.
INSTALLED := $(VENV)/.installed
DEV_INSTALLED := $(VENV)/.installed-dev
VERSION := $(shell sed -n 's/^__version__ = "\(.*\)"/\1/p' fcn_deploy/_version.py)
HARD_NETS := UNet FastScnn MobileDeepLab EspNet
PEERS := .venv-peers
PEERS_INSTALLED := $(PEERS)/.installed
# The oldest Python that is claimed; pyenv finds it by PYENV_VERSION, elsewhere that variable does nothing.
PYTHON_OLDEST ?= python3.10
OLDEST := .venv-oldest
OLDEST_INSTALLED := $(OLDEST)/.installed
OLDEST_EXPORTED := $(CURDIR)/$(OLDEST)/exported
OLDEST_TESTS := tests/runtime tests/artifacts tests/data tests/reporting tests/cli/test_app.py
NETS_VENV := .venv-nets
NETS_INSTALLED := $(NETS_VENV)/.installed
REPORT_VENV := .venv-report
REPORT_INSTALLED := $(REPORT_VENV)/.installed
AXE := $(REPORT_VENV)/node_modules/axe-core/axe.min.js
# Which public nets: a pytest expression such as `pspnet or segformer`; all of them if empty.
NETS ?=
# For which machine `make dist-device` collects wheels.
DEVICE ?= here
# Arguments for tools/bench_peers.py: a model of yours, shapes, threads.
BENCH ?=
# Arguments for tools/bench_nets.py, such as `--net UNet`; and a folder with the FCN-8s trained on CamVid.
FIDELITY ?=
CAMVID ?=

.PHONY: demo test test-slow test-oldest test-nets report-check report-screenshots hard-nets bench-fidelity bench lint \
	format dist dist-device clean

demo: $(INSTALLED)
	$(BIN)/fcn-deploy deploy --demo -o demo-out

test: $(DEV_INSTALLED)
	$(BIN)/python -m pytest -n 2 -m "not slow and not gpu"

test-slow: $(DEV_INSTALLED)
	$(BIN)/python -m pytest -m "slow"

# The runtime, and the rooms that need no PyTorch, with the oldest versions that pyproject.toml claims. The net whose
# engines they run is exported by today's versions in $(VENV), as a device gets its engine from a newer machine: PyTorch
# is not installed here, because its oldest build brings CUDA, some 3 GB.
test-oldest: $(DEV_INSTALLED) $(OLDEST_INSTALLED)
	rm -rf $(OLDEST_EXPORTED)
	mkdir $(OLDEST_EXPORTED)
	FCN_DEPLOY_TEST_EXPORTED=$(OLDEST_EXPORTED) $(BIN)/python -m pytest -q \
		tests/runtime/test_segmenter.py::test_an_exported_model_runs_by_its_own_metadata
	FCN_DEPLOY_TEST_EXPORTED=$(OLDEST_EXPORTED) $(OLDEST)/bin/python -m pytest -m "not slow and not gpu" $(OLDEST_TESTS)

# Nets of public libraries, with random weights, from export to INT8; it prints a table of what was found.
test-nets: $(NETS_INSTALLED)
	OMP_NUM_THREADS=1 $(NETS_VENV)/bin/python -m pytest -n 2 -k "$(NETS)" tests/nets

# Reports in headless Chromium: nothing is loaded, every picture is shown, axe-core finds nothing. Needs npm, and
# Chromium of the system: on Debian, apt-get install chromium.
report-check: $(REPORT_INSTALLED)
	AXE_CORE=$(CURDIR)/$(AXE) $(REPORT_VENV)/bin/python -m pytest -q tests/reporting/test_browser.py

# The pictures in docs/report.md, of the demo.
report-screenshots: $(REPORT_INSTALLED) demo-out/report.html
	$(REPORT_VENV)/bin/python tools/screenshots.py demo-out/report.html -o docs/images

demo-out/report.html: | $(INSTALLED)
	$(MAKE) demo

# The weights in tests/support/weights, some 30 minutes on one core; a run that is repeated goes on with the next net.
hard-nets: $(DEV_INSTALLED) $(HARD_NETS:%=tests/support/weights/%.safetensors)

tests/support/weights/%.safetensors: out/scenes/classes.csv
	mkdir -p $(@D)
	$(BIN)/python tools/train.py --images out/scenes/images --labels out/scenes/labels --class-names $< \
		--model tests.support.hard_nets:$* --steps 1500 --batch 8 --crop 128x192 --lr 3e-3 --every 500 --threads 1 -o $@

out/scenes/classes.csv:
	$(BIN)/python -c "from pathlib import Path; from fcn_deploy.demo import TRAINING_SEEDS, write_scenes; \
		write_scenes(Path('out/scenes'), TRAINING_SEEDS[:1500])"

bench: $(DEV_INSTALLED) $(PEERS_INSTALLED)
	mkdir -p out
	$(BIN)/python tools/bench_peers.py --peers $(PEERS)/bin/python -o out/peers.json --plot out/peers.svg $(BENCH)

# Agreement, mIoU drop and time of nets beside what others make of them: a table of docs/results.md. The FCN-8s is left
# out, and that is said, where CAMVID names no folder that has it.
bench-fidelity: $(DEV_INSTALLED) $(PEERS_INSTALLED)
	mkdir -p out
	$(BIN)/python tools/bench_nets.py --peers $(PEERS)/bin/python $(CAMVID:%=--camvid %) $(FIDELITY) -o out/fidelity.md

lint: $(DEV_INSTALLED)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

format: $(DEV_INSTALLED)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

# The sdist, and the wheel that is built from it.
dist: $(DEV_INSTALLED)
	$(BIN)/python -m build --no-isolation --outdir dist

# What a device without a network installs: see tools/device_wheels.py. DEVICE may go on with its options, as in
# DEVICE="debian-12 --extras cli,openvino".
dist-device: dist
	$(BIN)/python tools/device_wheels.py dist/fcn_deploy-$(VERSION)-py3-none-any.whl --device $(DEVICE) -o dist

clean:
	rm -rf $(VENV) $(OLDEST) $(PEERS) $(NETS_VENV) $(REPORT_VENV) demo-out dist

# --no-compile: Python compiles what it imports, which is a small part of PyTorch.
$(INSTALLED): pyproject.toml constraints.txt
	@echo "setting up $(VENV) with PyTorch, ONNX and ONNX Runtime: once, some minutes if they have to be downloaded"
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --no-compile --constraint constraints.txt --editable '.[host,cpu]'
	touch $@

# It holds what $(INSTALLED) has, so that pip runs once on a machine that only tests.
$(DEV_INSTALLED): pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[host,cpu,dev]'
	touch $(INSTALLED) $@

$(OLDEST_INSTALLED): pyproject.toml tools/oldest.txt
	test -x $(OLDEST)/bin/python \
		|| PYENV_VERSION=$(patsubst python%,%,$(notdir $(PYTHON_OLDEST))) $(PYTHON_OLDEST) -m venv $(OLDEST) \
		|| { echo "make: $(PYTHON_OLDEST) makes no environment; the oldest versions are tested on $$($(PYTHON) --version)" \
			"instead (PYTHON_OLDEST=... names another)" >&2; $(PYTHON) -m venv --clear $(OLDEST); }
	$(OLDEST)/bin/python -m pip install --quiet --no-compile --requirement tools/oldest.txt --editable '.[cli,cpu]'
	touch $@

$(PEERS_INSTALLED): tools/peers.txt
	test -x $(PEERS)/bin/python || $(PYTHON) -m venv $(PEERS)
	$(PEERS)/bin/python -m pip install --quiet --requirement tools/peers.txt
	touch $@

# It sees what is in $(VENV) too, so that only the libraries of the nets are installed.
$(NETS_INSTALLED): $(DEV_INSTALLED) tests/nets/requirements.txt
	test -x $(NETS_VENV)/bin/python || $(BIN)/python -m venv $(NETS_VENV)
	$(BIN)/python -c "import sysconfig; print('import site; site.addsitedir(%r)' % sysconfig.get_path('purelib'))" \
		> "$$($(NETS_VENV)/bin/python -c "import sysconfig; print(sysconfig.get_path('purelib'))")/host.pth"
	$(NETS_VENV)/bin/python -m pip install --quiet --constraint constraints.txt --requirement tests/nets/requirements.txt
	touch $@

# It sees what is in $(VENV) too, so that only the driver of the browser is installed.
$(REPORT_INSTALLED): $(DEV_INSTALLED) tools/browser.txt
	test -x $(REPORT_VENV)/bin/python || $(BIN)/python -m venv $(REPORT_VENV)
	$(BIN)/python -c "import sysconfig; print('import site; site.addsitedir(%r)' % sysconfig.get_path('purelib'))" \
		> "$$($(REPORT_VENV)/bin/python -c "import sysconfig; print(sysconfig.get_path('purelib'))")/host.pth"
	$(REPORT_VENV)/bin/python -m pip install --quiet --requirement tools/browser.txt
	npm install --prefix $(REPORT_VENV) --no-save --no-audit --no-fund --silent axe-core@4.14.1
	touch $@
