# recalld: `make help` lists what there is to do; `make deps && make` builds both programs into build/.
# A bare Debian 12 needs one package before that: apt-get update && apt-get install -y make (and git, to clone).
#
# Written for GNU make on Debian 12 or Ubuntu. Adding a .c file to a folder, or a tests/unit/<folder>/test_*.c, is
# enough: sources are found by wildcard, header dependencies by the compiler.

MAKEFLAGS += --no-builtin-rules
SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := all
.DELETE_ON_ERROR:
.SECONDARY:

# Parallel unless the caller chose -j, or named several goals (`make clean all` must keep its order).
JOBS  ?= $(shell nproc 2>/dev/null || echo 2)
ifeq ($(MAKELEVEL)$(filter -j%,$(MAKEFLAGS))$(word 2,$(MAKECMDGOALS)),0)
MAKEFLAGS += -j$(JOBS)
endif

# BUILD keeps sanitizer builds apart from the real one.
BUILD ?= build
PREFIX ?= /usr/local
DESTDIR ?=
T ?=
# the interpreter of what compares with PyTorch: make oracle, tests/bench/torch_speed.sh
PYTHON ?= /usr/bin/python3

# --- compiler --------------------------------------------------------------------------------------------------------

# "cc" is make's own default; -march=native is never used: SIMD is chosen at run time (target_clones in core/vecmath.c).
ifeq ($(origin CC),default)
CC := gcc
endif
OPT      ?= -O3 -g
WARN     := -Wall -Wextra -Wconversion -Wformat -Wformat-security -Wstrict-prototypes -Wmissing-prototypes -Wvla -Werror
HARDEN   := -U_FORTIFY_SOURCE -D_FORTIFY_SOURCE=2 -fstack-protector-strong -fPIE
LDHARDEN := -pie -Wl,-z,relro,-z,now -Wl,--as-needed
SAN      ?=
ifneq ($(SAN),)
# Sanitizers: our ifunc resolvers (target_clones) run before the sanitizer's runtime is ready, so the code leaves them
# out under RECALLD_NO_CLONES; fortified libc calls would hide accesses from ASan.
OPT      := -O1 -g -fno-omit-frame-pointer
HARDEN   := -fPIE
SANFLAGS := -fsanitize=$(SAN) -fno-sanitize-recover=all -DRECALLD_NO_CLONES
endif
ALL_CFLAGS  := -std=c11 -D_GNU_SOURCE $(OPT) $(WARN) -fno-math-errno -ffp-contract=fast $(HARDEN) $(SANFLAGS) -pthread -I. $(CFLAGS)
ALL_LDFLAGS := $(SANFLAGS) $(LDHARDEN) -pthread $(LDFLAGS)

# --- rooms: folders, their objects, and the libraries each may use -----------------------------------------------------
# core <- config, core <- ann, {core config ann} <- train, the same <- server; tests/lint/includes.sh holds them to it.

ROOMS := core config ann train server
sources = $(wildcard $(1)/*.c)
objects = $(patsubst %.c,$(BUILD)/obj/%.o,$(filter-out %/main.c,$(call sources,$(1))))

# a room's libraries, ours first; @file is a response file that names the faiss build (see faiss below)
USES_core   := core
USES_config := config core
USES_ann    := ann core
USES_train  := train config ann core
USES_server := server config ann core
LIBS_core   := -ljansson -lopenblas -lcrypto -lzstd -lz -lm
LIBS_config := -lyaml $(LIBS_core)
LIBS_ann     = @$(BUILD)/faiss.libs $(LIBS_core)
LIBS_train   = -lyaml $(LIBS_ann)
LIBS_server  = -levent -levent_pthreads -lyaml -lssl $(LIBS_ann)
archives = $(foreach r,$(USES_$(1)),$(BUILD)/lib$(r).a)

PROGRAMS := $(if $(wildcard train/main.c),$(BUILD)/recall-train) $(if $(wildcard server/main.c),$(BUILD)/recalld)

.PHONY: all
all: $(PROGRAMS) ## build/recalld and build/recall-train (the default)
	@$(if $(strip $(PROGRAMS)),:,echo "no train/main.c or server/main.c here yet")

$(BUILD)/recall-train: $(BUILD)/obj/train/main.o $(call archives,train) $(BUILD)/faiss.libs
	@echo "  LINK  $@"
	@$(CC) $(ALL_LDFLAGS) -o $@ $< -Wl,--start-group $(call archives,train) -Wl,--end-group $(LIBS_train)

$(BUILD)/recalld: $(BUILD)/obj/server/main.o $(call archives,server) $(BUILD)/faiss.libs
	@echo "  LINK  $@"
	@$(CC) $(ALL_LDFLAGS) -o $@ $< -Wl,--start-group $(call archives,server) -Wl,--end-group $(LIBS_server)

# An archive is remade whole, so that a removed source file leaves no member behind.
define room_archive
$(BUILD)/lib$(1).a: $(call objects,$(1)) $(BUILD)/$(1).list
	@rm -f $$@ && ar rcs $$@ $(call objects,$(1))
endef
$(foreach r,$(ROOMS),$(eval $(call room_archive,$(r))))

# the list of a room's sources: changes when a file is added or removed, and only then
$(BUILD)/%.list: FORCE
	@mkdir -p $(@D); echo '$(sort $(call sources,$*))' | cmp -s - $@ || echo '$(sort $(call sources,$*))' >$@

$(BUILD)/obj/%.o: %.c $(BUILD)/flags
	@mkdir -p $(@D); echo "  CC    $<"
	@$(CC) $(ALL_CFLAGS) $(if $(filter ann/%,$<),@$(BUILD)/faiss.cflags) -MMD -MP -c -o $@ $<

$(call objects,ann): | $(BUILD)/faiss.cflags

# changes when compiler or flags change, and makes everything be compiled again
$(BUILD)/flags: FORCE
	@mkdir -p $(@D); echo '$(CC) $(ALL_CFLAGS) $(ALL_LDFLAGS)' | cmp -s - $@ || echo '$(CC) $(ALL_CFLAGS) $(ALL_LDFLAGS)' >$@

# Where faiss is: asked every time (milliseconds), rewritten only when the answer changes.
$(BUILD)/faiss.libs $(BUILD)/faiss.cflags &: FORCE
	@mkdir -p $(@D); ann/faiss-build.sh flags $(@D)

.PHONY: FORCE
FORCE:

-include $(shell find $(BUILD)/obj $(BUILD)/tests -name '*.d' 2>/dev/null)

# --- packages and faiss ------------------------------------------------------------------------------------------------

PKG_BUILD := gcc g++ libc6-dev libevent-dev libjansson-dev libopenblas-dev libssl-dev libyaml-dev zlib1g-dev \
             libzstd-dev cmake dpkg-dev xz-utils
# what the demo (pip fetches its data), the examples and a person trying the HTTP interface need
PKG_RUN   := ca-certificates curl python3 python3-pip
PKG_TEST  := libcmocka-dev openssl python3 python3-pytest
PKG_LINT  := clang-format clang-tidy shellcheck python3
PKG_FUZZ  := clang libclang-rt-14-dev
# what stands before recalld in tests/e2e/test_proxies.py and tests/chaos; apart, since these packages start services
PKG_PROXY := haproxy nginx-light slowhttptest wrk

# install, PACKAGES: what is missing, and nothing (no apt call, no sudo) when nothing is
define install
	@want='$(sort $(1))'; missing=; \
	command -v dpkg-query >/dev/null || { echo "not a Debian or Ubuntu; install the equivalents of: $$want" >&2; exit 1; }; \
	have=$$(dpkg-query -W -f='$${db:Status-Abbrev}=$${binary:Package}\n' $$want 2>/dev/null || true); \
	for p in $$want; do grep -qE "^.i.?=$${p//+/\\+}(:|\$$)" <<<"$$have" || missing+=" $$p"; done; \
	if [ -z "$$missing" ]; then echo "packages: all $$(wc -w <<<"$$want") installed"; exit 0; fi; \
	echo "packages: installing$$missing"; \
	sudo=; if [ "$$(id -u)" != 0 ]; then \
	    sudo=sudo; command -v sudo >/dev/null || { echo "not root, and no sudo here. As root: apt-get install$$missing" >&2; exit 1; }; fi; \
	apt() { $$sudo env DEBIAN_FRONTEND=noninteractive apt-get -q -o DPkg::Lock::Timeout=300 -o Dpkg::Use-Pty=0 "$$@"; }; \
	apt update && apt install -y --no-install-recommends $$missing
endef

.PHONY: deps test-deps lint-deps fuzz-deps proxy-deps
deps: ## install the Debian packages and faiss (sudo only when not root); instant when there is nothing to do
	$(call install,$(PKG_BUILD) $(PKG_RUN))
	@ann/faiss-build.sh ensure

test-deps:
	$(call install,$(PKG_BUILD) $(PKG_RUN) $(PKG_TEST))
	@ann/faiss-build.sh ensure

lint-deps:
	$(call install,$(PKG_LINT))

fuzz-deps: deps
	$(call install,$(PKG_FUZZ))

proxy-deps: ## install HAProxy, nginx and wrk: without them the tests behind proxies are skipped
	$(call install,$(PKG_PROXY))

# --- tests -------------------------------------------------------------------------------------------------------------
# tests/unit/<room>/test_*.c: one cmocka program each, linked with what that room may use (never with main.c).
# tests/e2e/test_*.py: pytest; they find the programs in $RECALLD_BUILD. tests/unit/flags.mk may give one test extra
# linker flags, e.g.  $(BUILD)/tests/core/test_mem: TEST_LDFLAGS := -Wl,--wrap=malloc

UNIT_SRC := $(sort $(wildcard tests/unit/*/test_*.c))
UNIT_BIN := $(patsubst tests/unit/%.c,$(BUILD)/tests/%,$(UNIT_SRC))

-include tests/unit/flags.mk

define room_test
$(BUILD)/tests/$(1)/%: tests/unit/$(1)/%.c $(call archives,$(1)) $(BUILD)/flags $(if $(filter ann,$(USES_$(1))),$(BUILD)/faiss.libs)
	@mkdir -p $$(@D); echo "  TEST  $$<"
	@$$(CC) $$(ALL_CFLAGS) $(if $(filter ann,$(1)),@$(BUILD)/faiss.cflags) -MMD -MP -MF $$@.d $$(ALL_LDFLAGS) $$(TEST_LDFLAGS) \
	    -o $$@ $$< -Wl,--start-group $(call archives,$(1)) -Wl,--end-group -lcmocka $$(LIBS_$(1))
endef
$(foreach r,$(ROOMS),$(eval $(call room_test,$(r))))

# The trainer with its inside turned out, for tests/oracle and tests/bench.
PROBE := $(BUILD)/tests/train_probe

$(PROBE): tests/oracle/train_probe.c $(call archives,train) $(BUILD)/flags $(BUILD)/faiss.libs
	@mkdir -p $(@D); echo "  TEST  $<"
	@$(CC) $(ALL_CFLAGS) -MMD -MP -MF $@.d $(ALL_LDFLAGS) -o $@ $< -Wl,--start-group $(call archives,train) -Wl,--end-group $(LIBS_train)

# Each fuzz target with a main that runs it over kept inputs, tests/fuzz/corpus/<name>: tests/e2e/test_fuzz_corpus.py.
REPLAYS := $(patsubst tests/fuzz/fuzz_%.c,$(BUILD)/tests/fuzz/%,$(wildcard tests/fuzz/fuzz_*.c))

$(BUILD)/tests/fuzz/%: tests/fuzz/fuzz_%.c tests/fuzz/replay.c $(call archives,train) $(BUILD)/libserver.a $(BUILD)/flags $(BUILD)/faiss.libs
	@mkdir -p $(@D); echo "  TEST  $<"
	@$(CC) $(ALL_CFLAGS) -MMD -MP -MF $@.d $(ALL_LDFLAGS) -o $@ $< tests/fuzz/replay.c \
	    -Wl,--start-group $(call archives,train) $(BUILD)/libserver.a -Wl,--end-group $(LIBS_server)

# An index engine that takes turns with other libraries, for tests/bench/ann_peers.sh.
$(BUILD)/bench/%: tests/bench/%.c $(call archives,train) $(BUILD)/flags $(BUILD)/faiss.libs
	@mkdir -p $(@D); echo "  BENCH $<"
	@$(CC) $(ALL_CFLAGS) -MMD -MP -MF $@.d $(ALL_LDFLAGS) -o $@ $< -Wl,--start-group $(call archives,train) -Wl,--end-group $(LIBS_train)

.PHONY: test test-run unit replays probe oracle
test: ## install what tests need, build, run every test (T=pattern: only those whose name contains it)
	@$(MAKE) --no-print-directory test-deps
	@$(MAKE) --no-print-directory test-run

unit: $(UNIT_BIN)

replays: $(REPLAYS)

probe: $(PROBE)

oracle: all probe ## loss and gradients of one batch against PyTorch, which $(PYTHON) must have (Debian: python3-torch)
	@RECALLD_BUILD=$(abspath $(BUILD)) $(PYTHON) tests/oracle/torch_oracle.py

test-run: all unit probe $(REPLAYS)
	@RECALLD_BUILD=$(abspath $(BUILD)) RECALLD_SANITIZER=$(RECALLD_SANITIZER) /usr/bin/python3 tests/run --build $(BUILD) $(if $(T),--match '$(T)')

# The same tests, unit and end to end (these run the programs in RECALLD_BUILD=build/asan), under one sanitizer each.
# RECALLD_SANITIZER tells a test that measures time or memory that it cannot.
# An impossible allocation fails, as it does without them, since that is what tests ask for. faiss, OpenBLAS and libgomp
# themselves are not instrumented; tests/sanitizers/tsan.supp says what that means for TSan.
.PHONY: asan ubsan tsan
asan: ## all tests under AddressSanitizer and LeakSanitizer
	@ASAN_OPTIONS=detect_leaks=1:allocator_may_return_null=1:strict_string_checks=1:detect_stack_use_after_return=1 \
	$(MAKE) --no-print-directory test BUILD=build/asan SAN=address RECALLD_SANITIZER=asan

ubsan: ## all tests under UndefinedBehaviorSanitizer
	@UBSAN_OPTIONS=print_stacktrace=1 \
	$(MAKE) --no-print-directory test BUILD=build/ubsan SAN=undefined,float-divide-by-zero,float-cast-overflow RECALLD_SANITIZER=ubsan

tsan: ## all tests under ThreadSanitizer
	@TSAN_OPTIONS=suppressions=$(CURDIR)/tests/sanitizers/tsan.supp:second_deadlock_stack=1:allocator_may_return_null=1 OMP_THREAD_LIMIT=1 \
	$(MAKE) --no-print-directory test BUILD=build/tsan SAN=thread RECALLD_SANITIZER=tsan

# --- lint --------------------------------------------------------------------------------------------------------------

C_FILES   = $(sort $(wildcard $(ROOMS:%=%/*.[ch]) tests/unit/*.[ch] tests/unit/*/*.[ch] tests/oracle/*.[ch] tests/bench/*.[ch] tests/fuzz/*.[ch] tests/chaos/*.[ch]))
SH_FILES  = $(sort $(wildcard */*.sh */*/*.sh */*/*/*.sh .ci/run))
PY_FILES  = $(sort $(wildcard tests/run tests/*/*.py docs/*/*.py docs/*/*/*.py))

.PHONY: lint lint-includes lint-format lint-tidy lint-shell lint-python format
lint: ## include rules, format, clang-tidy, shellcheck: any finding is an error
	@$(MAKE) --no-print-directory lint-deps
	@$(MAKE) --no-print-directory -k --output-sync lint-includes lint-format lint-shell lint-python lint-tidy
	@echo "lint: clean"

lint-includes:
	@tests/lint/selftest.sh
	@tests/lint/includes.sh

lint-format:
	@$(if $(C_FILES),clang-format --dry-run -Werror $(C_FILES))

# One stamp a file, so that only what changed is looked at again.
lint-tidy: $(patsubst %.c,$(BUILD)/lint/%.tidy,$(foreach r,$(ROOMS),$(call sources,$(r))))

$(BUILD)/lint/%.tidy: %.c .clang-tidy $(wildcard $(ROOMS:%=%/*.h)) | $(BUILD)/faiss.cflags $(BUILD)/lint/include/omp.h
	@mkdir -p $(@D); echo "  TIDY  $<"
	@clang-tidy --quiet $< -- -std=c11 -D_GNU_SOURCE -DRECALLD_NO_CLONES -I. \
	    -idirafter $(BUILD)/lint/include $(if $(filter ann/%,$<),$$(cat $(BUILD)/faiss.cflags)) \
	    2> >(grep -vE '^[0-9]+ warnings? (generated|treated)' >&2)
	@touch $@

# clang has no omp.h without another package: take gcc's (that file alone, its neighbours would shadow clang's own
# headers) without the one attribute clang does not know.
$(BUILD)/lint/include/omp.h:
	@mkdir -p $(@D); sed 's/__malloc__ ([a-z_]*),//' "$$($(CC) -print-file-name=include/omp.h)" >$@

lint-shell:
	@shellcheck $(SH_FILES)

lint-python:
	@for f in $(PY_FILES); do /usr/bin/python3 -c 'import sys; compile(open(sys.argv[1]).read(), sys.argv[1], "exec")' $$f; done

format: lint-deps ## rewrite the C files in the project's format
	@clang-format -i $(C_FILES)

# --- running, installing, the rest ---------------------------------------------------------------------------------------

.PHONY: demo run install clean help
demo: ## everything at once: packages, build, MovieLens 100K, training, serving, a recall with film titles
	@$(MAKE) --no-print-directory deps
	@$(MAKE) --no-print-directory all
	@docs/examples/movielens/demo.sh

run: ## the same, and leaves it serving
	@$(MAKE) --no-print-directory deps
	@$(MAKE) --no-print-directory all
	@docs/examples/movielens/demo.sh --keep

.PHONY: bench
bench: all ## measure: tests/bench/
	@tests/bench/run.sh

.PHONY: fuzz
fuzz: fuzz-deps ## fuzz every parser, FUZZ_SECONDS=60 each: tests/fuzz/
	@tests/fuzz/run.sh $(FUZZ_SECONDS)

.PHONY: coverage
coverage: ## lines and branches of our parsers that unit tests and kept fuzz inputs reach
	@$(MAKE) --no-print-directory unit replays BUILD=build/coverage OPT='-Og -g' CFLAGS=--coverage LDFLAGS=--coverage
	@tests/coverage.sh build/coverage

.PHONY: chaos
chaos: all ## kill -9 recall-train KILLS=100 times; then faults of every kind for recalld, ROUNDS=1000; every allocation fails once
	@RECALLD_BUILD=$(abspath $(BUILD)) tests/chaos/kill9.py $(or $(KILLS),100)
	@RECALLD_BUILD=$(abspath $(BUILD)) tests/chaos/daemon.py $(or $(ROUNDS),1000)
	@RECALLD_BUILD=$(abspath $(BUILD)) tests/chaos/failures.py

# SANITIZER=address or thread: under one; the options are those of make asan and make tsan
SANITIZER ?=
.PHONY: soak
soak: ## mixed traffic with a reload a second, SECONDS=300 (SANITIZER=address|thread): nothing unexpected, memory flat
ifeq ($(SANITIZER),)
	@$(MAKE) --no-print-directory all
	@RECALLD_BUILD=$(abspath $(BUILD)) tests/chaos/soak.py $(or $(SECONDS),300)
else
	@$(MAKE) --no-print-directory all BUILD=build/soak-$(SANITIZER) SAN=$(SANITIZER)
	@ASAN_OPTIONS=detect_leaks=1:allocator_may_return_null=1 OMP_THREAD_LIMIT=1 \
	TSAN_OPTIONS=suppressions=$(CURDIR)/tests/sanitizers/tsan.supp:second_deadlock_stack=1:allocator_may_return_null=1 \
	RECALLD_SANITIZER=$(SANITIZER) RECALLD_BUILD=$(abspath build/soak-$(SANITIZER)) tests/chaos/soak.py $(or $(SECONDS),300)
endif

.PHONY: rolling
rolling: all proxy-deps ## restart and reload two daemons behind HAProxy, then nginx, SECONDS=60 each under load: no request may fail
	@for p in haproxy nginx; do RECALLD_BUILD=$(abspath $(BUILD)) tests/chaos/rolling.py $(or $(SECONDS),60) --proxy $$p; done

.PHONY: slow-clients
slow-clients: all proxy-deps ## p99 of others under slowhttptest, idle and silent connections, SECONDS=10 each
	@RECALLD_BUILD=$(abspath $(BUILD)) tests/chaos/slow_clients.py $(or $(SECONDS),10)

install: all ## copy programs, unit and example configurations (PREFIX=/usr/local, DESTDIR= for packagers)
	install -d $(DESTDIR)$(PREFIX)/bin
	install -m 755 $(PROGRAMS) $(DESTDIR)$(PREFIX)/bin/
	@if [ -f systemd/recalld.service ]; then set -x; \
	    install -d $(DESTDIR)$(PREFIX)/lib/systemd/system; \
	    sed 's|/usr/local/bin/|$(PREFIX)/bin/|g' systemd/recalld.service >$(DESTDIR)$(PREFIX)/lib/systemd/system/recalld.service; fi
	install -D -m 644 docs/examples/recalld.yaml $(DESTDIR)$(PREFIX)/share/doc/recalld/examples/recalld.yaml

clean: ## remove build/ (faiss stays in its cache: ann/faiss-build.sh where)
	rm -rf build

help: ## this list
	@grep -hE '^[a-z-]+:.*## ' Makefile | \
	    sed -E 's/:.*## /\t/' | expand -t 12
