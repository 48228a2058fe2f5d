# Front door; CMake presets do the work (cmake --list-presets). MODEL=path runs the demo on a model of yours.
.PHONY: all demo test check bench install clean setup
JOBS ?= $(shell nproc)

all: build

setup:
	@tools/setup.sh

build: setup
	@cmake --preset release -DEDGEWISE_TESTS=OFF -B build/product >/dev/null
	@cmake --build build/product -j$(JOBS)

# Converts, quantizes, measures and reports: ends with a table and report.html.
demo: build
	@EDGEWISE=build/product/bin/edgewise tools/demo.sh $(MODEL)

# Everything CI runs: gcc, clang with sanitizers, fuzzing, aarch64 under emulation, interop.
test:
	@tools/setup.sh tests
	@JOBS=$(JOBS) tools/test.sh

# The quick part: one build, the fast tests.
check:
	@tools/setup.sh tests
	@cmake --preset release >/dev/null && cmake --build --preset release -j$(JOBS)
	@ctest --preset release -L fast

bench:
	@tools/setup.sh tests
	@JOBS=$(JOBS) bench/run.sh

install: build
	@cmake --install build/product $(if $(PREFIX),--prefix $(PREFIX))

clean:
	@rm -rf build
