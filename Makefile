# Each target does its own set-up. Another Python than the newest found: make test PYTHON=python3.12
# A Python that test-all may leave out, as it has been tested: make test-all TESTED=/usr/bin/python3.12

PYTHON ?= $(firstword $(shell scripts/pythons))

venv = .venv/.made
wheel = build/wheel/.made
servers = prometheus victoria-metrics

help: ## show the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-12s%s\n", $$1, $$2 }' Makefile

demo: .venv/.demo ## a small shop under load, profiled: the page, and Prometheus (DEMO_SECONDS=30: and end)
	@scripts/debian-packages prometheus
	.venv/bin/python examples/shop/demo.py

test: $(wheel) ## the tests, on one Python
	@scripts/debian-packages $(servers)
	scripts/test $(PYTHON) build/wheel/*.tar.gz build/test/$(PYTHON:/%=%)

test-all: $(wheel) ## every test, on every Python found and on those of Debian's next release
	@scripts/debian-packages $(servers)
	scripts/test-all build/wheel/*.tar.gz $(TESTED)

test-servers: $(wheel) ## gunicorn, uvicorn, uWSGI, Celery, pools, gevent, eventlet, loops under load
	scripts/test $(PYTHON) build/wheel/*.tar.gz build/test/servers --group=servers tests/servers \
	  --numprocesses=4

test-frameworks: $(wheel) ## mounted in Flask, FastAPI, Starlette, Django; beside ox-profile itself
	scripts/test $(PYTHON) build/wheel/*.tar.gz build/test/frameworks --group=frameworks \
	  tests/frameworks --numprocesses=4
test-otel: $(wheel) ## opentelemetry-instrument, OTLP into a receiver and VictoriaMetrics
	scripts/test $(PYTHON) build/wheel/*.tar.gz build/test/opentelemetry --group=opentelemetry \
	  tests/opentelemetry --numprocesses=4

test-readers: $(wheel) ## profiles as `go tool pprof` reads them
	@scripts/debian-packages golang-go
	scripts/test $(PYTHON) build/wheel/*.tar.gz build/test/readers "" tests/readers

test-grafana: $(wheel) ## what Grafana's own code draws, and speedscope imports (pictures: build/grafana)
	scripts/test-grafana $(PYTHON) build/wheel/*.tar.gz build/test/grafana

test-browser: $(wheel) ## the page in a browser: look, click, type, listen (pictures: build/browser)
	scripts/test-browser $(PYTHON) build/wheel/*.tar.gz build/test/browser

pictures: test-grafana test-browser ## make the pictures anew that the README shows
	mkdir -p docs
	cp build/grafana/flame-graph.png docs/flame-graph.png
	cp build/browser/page.png docs/page.png

soak: $(wheel) ## a service that never rests, for half an hour: memory, files, threads (SOAK_SECONDS=1800)
	SOAK_SECONDS=$${SOAK_SECONDS:-1800} scripts/test $(PYTHON) build/wheel/*.tar.gz build/test/$(PYTHON) \
	  "" tests/real/test_soak.py -s -o faulthandler_timeout=0

ticks-stress: $(wheel) ## the worst for the ticks on every Python, half an hour (TICKS_STRESS_SECONDS=1800)
	TICKS_STRESS_SECONDS=$${TICKS_STRESS_SECONDS:-1800} scripts/test-all build/wheel/*.tar.gz "" \
	  tests/test_ticks_stress.py -o faulthandler_timeout=0

check: .venv/.check ## format, lint, types, layers, dependencies, spelling
	.venv/bin/ruff format --check
	.venv/bin/ruff check
	.venv/bin/mypy
	.venv/bin/lint-imports
	.venv/bin/deptry ox_otel --known-first-party ox_otel
	.venv/bin/codespell

bench: build/bench-venv/.made ## measure truth and cost beside other profilers (BENCH=quick: in brief)
	build/bench-venv/bin/python -m bench

dashboards: $(venv) ## write the dashboards anew
	.venv/bin/python deploy/grafana/dashboards.py

clean: ## remove what these targets made in this folder
	rm -rf .venv build *.egg-info .*_cache .hypothesis

.PHONY: help demo test test-all test-servers test-frameworks test-otel test-readers test-grafana \
  test-browser pictures soak ticks-stress check bench dashboards clean

# The environment to develop in: the package in it is this folder's own. Tests have others, see
# scripts/test. The files .made, .demo and .check say what is in it.
$(venv): scripts/venv
	scripts/venv $(PYTHON) .venv
	.venv/bin/pip install --quiet --quiet build --editable .
	touch $@

.venv/.demo: pyproject.toml $(venv)
	.venv/bin/pip install --quiet --quiet --editable '.[flask]'
	touch $@

.venv/.check: pyproject.toml $(venv)
	.venv/bin/pip install --quiet --quiet --group lint --editable '.[flask,otel]'
	touch $@

# One by one: what cannot be installed on this Python is missing in the results, which say so.
build/bench-venv/.made: bench/requirements.txt pyproject.toml scripts/venv
	scripts/venv $(PYTHON) build/bench-venv
	build/bench-venv/bin/pip install --quiet --quiet --editable .
	-xargs -n 1 build/bench-venv/bin/pip install --quiet --quiet <$<
	touch $@

# The wheel is made from the source distribution, so that both are known to be whole. Tests install
# the latter, because a wheel has the extension for one Python only.
$(wheel): pyproject.toml setup.py README.md LICENSE $(venv) \
  $(shell find ox_otel -name '*.py' -o -name '*.[ch]' -o -path '*/page/*')
	rm -rf build/wheel
	.venv/bin/python -m build --quiet --quiet --outdir build/wheel .
	touch $@
