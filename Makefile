# Every target sets up what it needs (a virtual environment in .venv, the programs, an engine) and can be repeated.

PYTEST_ARGS ?=
PREFIX ?= $(HOME)/.local
VENV := .venv/bin

.DEFAULT_GOAL := help
.PHONY: help venv quickstart quickstart-clean setup verify install-user install uninstall build wheel deb image test test-all test-compiled test-packages test-desktop test-unit \
	runtime-image test-network test-persistence test-crash check lint fmt type bench soak run install-systemd clean

help: ## list the targets
	@awk -F ':.*## ' '/^##@/ {printf "\n%s\n", substr($$0, 5)} /^[a-z-]+:.*## / {printf "  %-18s %s\n", $$1, $$2}' Makefile

##@ First steps
quickstart: ## start the daemon, deploy an agent, kill it, and see that no request is lost
	@scripts/quickstart
quickstart-clean: ## remove all that quickstart made
	@scripts/quickstart-clean
run: venv ## run the daemon in the foreground, with a state folder of its own (.run)
	@mkdir -p .run && exec $(VENV)/agentainerd --state-dir .run/state --runtime-dir .run/sockets

##@ Installing
setup: ## install everything that is needed here: programs, .venv, a running engine
	@scripts/setup
venv: ## only the virtual environment, .venv
	@scripts/setup venv
verify: ## check that this machine has everything, and say what is missing
	@scripts/verify
install-user: ## install both programs for this user, into ~/.local/bin
	@scripts/install-user "$(PREFIX)"
install: ## install the programs for the whole machine, into /opt/agentainer (as root)
	@scripts/install
install-systemd: ## the same, and the systemd units, the user and a sample configuration
	@scripts/install --systemd
uninstall: ## remove what these two installed; agents, their data and the configuration stay
	@scripts/uninstall

##@ Testing
test: ## every test, against a real Docker Engine and a real Redis
	@scripts/test $(PYTEST_ARGS)
test-all: test ## the same as test
test-compiled: ## compile the hot path as an installation does, and test data plane and journal on it
	@scripts/test-compiled $(PYTEST_ARGS)
test-desktop: ## build the image with a desktop, and look at a job's screen and notebooks with a real Chromium
	@scripts/setup desktop && TEST_DESKTOP=1 scripts/test tests/runtime/test_desktop.py --timeout 0 $(PYTEST_ARGS)
test-packages: ## install and remove as a Debian package, by make install, and as a container
	@scripts/test-packages $(PYTEST_ARGS)
test-unit: venv ## tests that need neither engine nor Redis
	@$(VENV)/python -m pytest -m "not docker and not redis and not system" $(PYTEST_ARGS)
test-network: ## networks of agents: isolation, names, the way to the daemon
	@scripts/test -k network $(PYTEST_ARGS)
test-persistence: ## requests are recorded, queued, replayed and kept over restarts
	@scripts/test -k "persist or journal or replay or queue or recover" $(PYTEST_ARGS)
test-crash: ## kill -9 of daemon, Redis and agents
	@scripts/test -k "crash or kill or dies or died" $(PYTEST_ARGS)

##@ Developing
check: ## ruff, format, mypy --strict, imports between the layers
	@scripts/check
lint: venv ## ruff
	@$(VENV)/ruff check . && $(VENV)/ruff format --check .
fmt: venv ## format the code
	@$(VENV)/ruff format . && $(VENV)/ruff check --fix .
type: venv ## mypy --strict
	@$(VENV)/mypy --strict
bench: venv ## measure the proxy (docs/performance.md has the numbers and how they were taken)
	@scripts/bench
soak: ## kill daemon, Redis and agent SOAK_KILLS times each (200) under load; journal and hostile clients, at length
	@SOAK_KILLS=$${SOAK_KILLS:-200} ACTIVATION_KILLS=$${ACTIVATION_KILLS:-100} TIMING_SAMPLES=10000 scripts/test \
		tests/system/test_promise.py tests/system/test_faults.py tests/system/test_deployments.py tests/system/test_activation.py tests/unit/services/test_tokens.py --timeout 0 $(PYTEST_ARGS)
	@MODEL_STEPS=$${MODEL_STEPS:-50000} POWER_LOSSES=$${POWER_LOSSES:-200} REWRITE_KILLS=$${REWRITE_KILLS:-100} \
		scripts/test tests/unit/store/test_model.py tests/unit/store/test_power.py tests/unit/store/test_rewrite.py tests/unit/store/test_audit_power.py \
		$(PYTEST_ARGS)
	@BACKUP_GIGABYTES=$${BACKUP_GIGABYTES:-5} scripts/test tests/system/test_backups.py --timeout 0 $(PYTEST_ARGS)
	@ARCHIVE_SOAK=1 scripts/test tests/unit/archives --timeout 0 $(PYTEST_ARGS)
	@SOAK_MUTATIONS=$${SOAK_MUTATIONS:-1000} SOAK_SPLITS=1 SOAK_SLOW_CLIENTS=$${SOAK_SLOW_CLIENTS:-5000} \
		scripts/test tests/hostile --timeout 0 $(PYTEST_ARGS)
	@RUN_KILLS=$${RUN_KILLS:-50} SOAK_BRIDGE=1 scripts/test tests/system/test_runs.py tests/system/test_bridge.py --timeout 0 $(PYTEST_ARGS)
	@SOAK_ANSWERS=1 CRASH_POINTS=all scripts/test tests/runtime/test_long_answers.py tests/runtime/test_crashes.py $(PYTEST_ARGS)
	@AUDIT_KILLS=$${AUDIT_KILLS:-50} scripts/test tests/system/test_audit.py --timeout 0 $(PYTEST_ARGS)
	@SOAK_METRICS_AGENTS=$${SOAK_METRICS_AGENTS:-100} scripts/test tests/system/test_metrics.py --timeout 0 $(PYTEST_ARGS)

##@ Packaging
build: wheel image ## the wheel, and the image of the example agent
wheel: ## build dist/*.whl, with the hot path compiled where there is a C compiler
	@scripts/wheel dist
deb: ## build dist/agentainer_*.deb, for the Debian or Ubuntu that it is built on
	@scripts/deb dist
image: ## build the example agent's image, simple-agent
	@scripts/setup engine && docker build -q -t simple-agent --build-arg BASE_IMAGE="$$(scripts/base-image)" examples/simple-agent
runtime-image: ## build the image of the runtime that agents have inside, agentainer-runtime
	@scripts/setup engine && scripts/runtime-image
clean: ## remove what was built, and caches; .venv too
	@rm -rf build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis .coverage .venv .run .compiled
	@find . -name __pycache__ -type d -prune -exec rm -rf {} +
