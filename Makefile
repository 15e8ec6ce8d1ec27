# Everything runs from a clean checkout with Python 3.11+, git and make. Environments live in .venvs/.
PYTHON ?= python3
VENVS  := .venvs
PIP    := -m pip install --quiet --disable-pip-version-check

.PHONY: help demo test test-mcp1 test-mcp2 lint bench bench-audit bench-language stress coverage properties fuzz format example-agentcore frameworks peers drift observability clean

FUZZ_SECONDS ?= 600

help:  ## List the targets
	@grep -hE '^[a-z0-9-]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*##/:/' | column -t -s ':'

demo: $(VENVS)/demo/ready  ## Run a scripted agent on two real servers under a policy
	$(VENVS)/demo/bin/mcp-policy demo

test: test-mcp1 test-mcp2  ## Run all tests in both dependency worlds

test-mcp1: $(VENVS)/mcp1/ready  ## Run the tests with mcp 1.x and langchain-mcp-adapters
	$(VENVS)/mcp1/bin/python -m pytest --world mcp1 $(PYTEST)

test-mcp2: $(VENVS)/mcp2/ready  ## Run the tests with mcp 2.x and langchain.mcp
	$(VENVS)/mcp2/bin/python -m pytest --world mcp2 $(PYTEST)

lint: $(VENVS)/lint/ready  ## Check style and types
	$(VENVS)/lint/bin/ruff check .
	$(VENVS)/lint/bin/ruff format --check .
	$(VENVS)/lint/bin/mypy

format: $(VENVS)/lint/ready  ## Rewrite the code in the house style
	$(VENVS)/lint/bin/ruff check --fix .
	$(VENVS)/lint/bin/ruff format .

bench: $(VENVS)/bench/ready  ## Measure a decision against a hand-written function, a guarded MCP call, and the stores
	$(VENVS)/bench/bin/python benchmarks/bench.py
	$(VENVS)/bench/bin/python benchmarks/stores.py

stress: $(VENVS)/mcp2/ready  ## Race 8 processes of 50 threads for one counter on SQLite and Redis, and kill writers
	PYTHONPATH=tests/servers $(VENVS)/mcp2/bin/python tests/stores/stress.py

bench-language: $(VENVS)/mcp2/ready  ## Measure costly patterns, long arguments and large documents
	$(VENVS)/mcp2/bin/python benchmarks/language.py

bench-audit: $(VENVS)/mcp2/ready  ## Measure a decision on record, and verifying a million lines of an audit log
	$(VENVS)/mcp2/bin/python benchmarks/audit_log.py

coverage: $(VENVS)/mcp2/ready  ## Measure branch coverage of the engine, counters, approvals and their backends, which is to be whole
	$(VENVS)/mcp2/bin/python -m coverage run --branch \
		--source mcp_policy_middleware/engine,mcp_policy_middleware/stores,mcp_policy_middleware/approvals,mcp_policy_middleware/backends -m pytest tests --ignore tests/adapters
	$(VENVS)/mcp2/bin/python -m coverage report --show-missing --fail-under 100

properties: $(VENVS)/mcp2/ready  ## Compare the engine with the reference evaluator on 20,000 random policies and calls
	HYPOTHESIS_PROFILE=many $(VENVS)/mcp2/bin/python -m pytest tests/test_properties.py

fuzz: $(VENVS)/fuzz/ready  ## Feed the reader and the guard garbage, for FUZZ_SECONDS (600) each
	$(VENVS)/fuzz/bin/python tests/fuzz/fuzz_reader.py --seconds $(FUZZ_SECONDS)
	$(VENVS)/fuzz/bin/python tests/fuzz/fuzz_guard.py --seconds $(FUZZ_SECONDS)

example-agentcore: $(VENVS)/agentcore/ready  ## Run the policy generation example against the real server (250 MB)
	$(VENVS)/agentcore/bin/python examples/policy_generation/run.py \
		$(VENVS)/agentcore/bin/awslabs.amazon-bedrock-agentcore-mcp-server

frameworks:  ## Try the guard in other people's agent frameworks, each in its own environment under .frameworks/ (4 GB)
	$(PYTHON) frameworks/run.py

peers: $(VENVS)/peers1/ready $(VENVS)/peers2/ready  ## Run the tests of mcp, LangChain and LangGraph with a guard under them
	$(VENVS)/peers2/bin/python peers/run.py --mcp1 $(VENVS)/peers1/bin/python --mcp2 $(VENVS)/peers2/bin/python $(PEERS)

drift:  ## Run the adapter suite on the oldest and the newest supported versions, each in its own environment under .drift/ (2 GB)
	$(PYTHON) drift/run.py $(DRIFT)

observability: $(VENVS)/phoenix/ready $(VENVS)/observed/ready  ## Show an agent's decisions to Arize Phoenix and Prometheus, and ask them back (1.2 GB)
	$(VENVS)/observed/bin/python observability/run.py $(VENVS)/phoenix/bin/phoenix

$(VENVS)/demo/ready: INSTALL = --editable '.[demo]'
$(VENVS)/mcp1/ready: INSTALL = --group test --editable '.[agents,cli,langchain-mcp,notebook,openinference,otel,redis,watch]'
$(VENVS)/mcp2/ready: INSTALL = --group test --editable '.[demo,notebook,redis,watch]'
$(VENVS)/bench/ready: INSTALL = --group bench --editable '.[mcp,otel,redis]'
$(VENVS)/lint/ready: INSTALL = --group lint --editable '.[agents,cli,langchain-mcp,otel,redis,watch]'
$(VENVS)/fuzz/ready: INSTALL = --group fuzz --editable .
$(VENVS)/peers1/ready: INSTALL = --group peers-mcp1 --editable .
$(VENVS)/peers2/ready: INSTALL = --group peers-mcp2 --editable .
$(VENVS)/phoenix/ready: INSTALL = --group phoenix
$(VENVS)/observed/ready: INSTALL = --group observed --editable '.[demo,openinference]'
$(VENVS)/agentcore/ready: INSTALL = --editable '.[mcp]' awslabs.amazon-bedrock-agentcore-mcp-server==0.2.1

$(addprefix $(VENVS)/,$(addsuffix /ready,demo mcp1 mcp2 bench lint fuzz peers1 peers2 phoenix observed agentcore)): $(VENVS)/%/ready: pyproject.toml
	$(PYTHON) -m venv $(VENVS)/$*
	$(VENVS)/$*/bin/python $(PIP) --upgrade pip
	$(VENVS)/$*/bin/python $(PIP) $(INSTALL)
	touch $@

clean:  ## Remove the environments and caches
	rm -rf $(VENVS) .drift .frameworks .peers .mypy_cache .pytest_cache .ruff_cache .hypothesis
