# Two commands do everything on a fresh Debian or Ubuntu machine with Python 3.11+ and make:
#   make demo    the main job on the shipped digits, in ./workbench-demo
#   make test    the whole test suite
# Both install what they need and say so first.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
SUDO := $(if $(filter 0,$(shell id -u)),,sudo)
PYTEST_ARGS ?= -n 2 --dist worksteal
SOAK_MINUTES ?= 3

# program=package, for what each target runs
DEMO_PROGRAMS := git=git bwrap=bubblewrap dpkg-deb=dpkg apt-get=apt
TEST_PROGRAMS := $(DEMO_PROGRAMS) skopeo=skopeo strace=strace qemu-x86_64=qemu-user setpriv=util-linux openssl=openssl \
  dockerd=docker.io ip=iproute2 docker-registry=docker-registry podman=podman tmux=tmux chromium=chromium wrk=wrk
BENCH_PROGRAMS := mmdebstrap=mmdebstrap

.PHONY: demo test replay recording proto lint fuzz bench bench-app bench-serving soak screenshots \
  system-demo system-test system-bench clean help

help:
	@sed -n 's/^#   //p' Makefile

define install_missing
	@missing=; for pair in $(1); do \
	  command -v $${pair%%=*} >/dev/null 2>&1 || missing="$$missing $${pair##*=}"; done; \
	$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || missing="$$missing python3-venv"; \
	if [ -n "$$missing" ]; then \
	  echo "Installing system packages:$$missing"; \
	  $(SUDO) apt-get update -qq && $(SUDO) apt-get install -y -qq --no-install-recommends $$missing; fi
endef

system-demo:
	$(call install_missing,$(DEMO_PROGRAMS))

system-test:
	$(call install_missing,$(TEST_PROGRAMS))

system-bench:
	$(call install_missing,$(BENCH_PROGRAMS))

$(VENV)/demo.done: pyproject.toml constraints.txt | system-demo
	@echo "Installing workbench and what it is built on into $(VENV)"
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable .
	@touch $@

$(VENV)/test.done: pyproject.toml constraints.txt $(VENV)/demo.done | system-test
	@echo "Installing what the tests need into $(VENV)"
	@$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[dev]'
	@touch $@

demo: $(VENV)/demo.done
	$(BIN)/workbench demo

test: $(VENV)/test.done
	$(BIN)/python -m pytest $(PYTEST_ARGS)

replay: $(VENV)/test.done
	PYTHONPATH=tests $(BIN)/python tests/shipped/replay.py

recording: $(VENV)/test.done
	PYTHONPATH=tests $(BIN)/python tests/shipped/recording.py

proto: $(VENV)/test.done
	$(BIN)/python -m grpc_tools.protoc -I. --python_out=. workbench/server/inference.proto workbench/server/health.proto

lint: $(VENV)/test.done
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

fuzz: $(VENV)/test.done
	PYTHONPATH=tests/server:tests FUZZ_MINUTES=$(or $(FUZZ_MINUTES),10) $(BIN)/python tests/server/fuzz.py

bench: $(VENV)/test.done | system-bench
	$(BIN)/python tests/speed/bench.py

bench-app: $(VENV)/test.done
	$(BIN)/python tests/speed/bench_app.py

bench-serving: $(VENV)/test.done
	$(BIN)/python tests/speed/bench_serving.py

soak: $(VENV)/test.done
	$(BIN)/python tests/speed/soak.py --minutes $(SOAK_MINUTES)

screenshots: $(VENV)/test.done
	$(BIN)/python tests/screens/screenshots.py assets/screens

clean:
	rm -rf $(VENV) workbench-demo
