# Sallyport: build, tests, lab. `make help` lists the targets.
.DELETE_ON_ERROR:
.SECONDARY:
MAKEFLAGS += --no-builtin-rules
SHELL := /bin/bash

VERSION := 0.1.0
BUILD   ?= release
B       := build/$(BUILD)
BIN     := build/bin
PREFIX  ?= /usr/local
DESTDIR ?=
PYTHON  ?= /usr/bin/python3
JOBS    ?= 2

# Packages that a bare Debian 12 lacks: to build and for `make check`, and for lab and `make test`.
DEPS_BUILD := gcc make pkg-config libc6-dev libstrophe-dev libexpat1-dev libssl-dev libc-ares-dev \
              libuv1-dev libidn2-dev libconfig-dev libyaml-dev libcmocka-dev uthash-dev python3
DEPS_TEST  := prosody ejabberd jabberd2 lua-unbound dnsmasq-base unbound nsd ldnsutils tshark \
              python3-pytest python3-pytest-xdist python3-dnspython openssl ca-certificates procps \
              iproute2 iptables
DEPS_CONTAINER := podman runc debootstrap
DEPS_DEV   := clang clang-format clang-tidy cppcheck libclang-rt-14-dev valgrind gcovr haproxy

PKGS := libstrophe expat openssl libcares libuv libidn2 libconfig yaml-0.1
# Targets that install what is missing themselves.
INSTALLING := deps deps-build deps-dev help clean lint lab lab-up lab-down lab-mode lab-servers test \
              container
ifneq ($(filter-out $(INSTALLING),$(or $(MAKECMDGOALS),all)),)
MISSING := $(strip $(foreach p,$(PKGS),$(shell pkg-config --exists $(p) 2>/dev/null || echo $(p))))
ifneq ($(MISSING),)
$(error $(MISSING) not found by pkg-config; run 'make deps')
endif
endif

CC      ?= gcc
CFLAGS  ?= -O2 -g
WARN    := -Wall -Wextra -Wshadow -Wstrict-prototypes -Wformat=2 -Wswitch -Wvla
HARDEN  := -fstack-protector-strong -fstack-clash-protection -fPIE \
           $(if $(filter x86_64,$(shell uname -m)),-fcf-protection)
ifeq ($(BUILD),release)
HARDEN  += -D_FORTIFY_SOURCE=3
endif
ifeq ($(WERROR),1)
WARN    += -Werror
endif
ifeq ($(BUILD),asan)
VARIANT := -O1 -fno-omit-frame-pointer -fsanitize=address,undefined -fno-sanitize-recover=undefined
endif
ifeq ($(BUILD),tsan)
VARIANT := -O1 -fno-omit-frame-pointer -fsanitize=thread
endif
ifeq ($(BUILD),cover)
VARIANT := -O0 --coverage
endif
ALL_CFLAGS  = -std=gnu17 $(CFLAGS) $(VARIANT) $(WARN) $(HARDEN) -I. -DSALLYPORT_VERSION='"$(VERSION)"' \
              -ffile-prefix-map=$(CURDIR)=. $(shell pkg-config --cflags $(PKGS)) -MMD -MP
ALL_LDFLAGS = $(LDFLAGS) $(VARIANT) -pie -Wl,-z,relro,-z,now -Wl,--as-needed
# The pure layers link without libuv and c-ares: that is the proof that they need no sockets.
PURE_LIBS   = $(shell pkg-config --libs libstrophe expat openssl libidn2 libconfig yaml-0.1) -lresolv -lpthread
ALL_LIBS    = $(PURE_LIBS) $(shell pkg-config --libs libcares libuv)

ifeq ($(V),1)
Q :=
else
Q := @
endif
comma := ,
say = @printf '  %-6s %s\n' $(1) $(2)

# ---- sources -----------------------------------------------------------------------------------
MAINS       := gateway/main.c xcp/router_main.c ctl/main.c
DRIVER_SRC  := $(filter-out core/daemon/alarm.c core/daemon/story.c,$(wildcard core/net/*.c core/daemon/*.c)) \
               $(wildcard dns/cares*.c dns/resolver*.c) \
               $(filter-out $(MAINS),$(wildcard gateway/*.c xcp/router*.c))
PURE_SRC    := $(filter-out $(DRIVER_SRC) $(MAINS),\
               $(wildcard core/base/*.c core/xml/*.c core/tls/*.c core/stream/*.c core/control/*.c \
               config/*.c dns/*.c core/daemon/alarm.c core/daemon/story.c $(filter-out ctl/main.c,$(wildcard ctl/*.c)) xcp/*.c gateway/policy/*.c gateway/proto/*.c gateway/route/*.c))
PURE_LIB    := $(B)/libpure.a
DRIVER_LIB  := $(B)/libdriver.a
obj          = $(patsubst %.c,$(B)/%.o,$(1))

# The sanitized programs stand beside the released ones.
PROG_DIR    := $(if $(filter release,$(BUILD)),$(BIN),$(B)/bin)
PROGRAMS    := $(PROG_DIR)/sallyport $(PROG_DIR)/sallyport-router $(PROG_DIR)/sallyportctl
LAB_USER    := $(PROG_DIR)/lab-user
TESTS_PURE  := $(patsubst tests/%.c,$(B)/tests/%,$(wildcard tests/unit/test_*.c tests/machine/test_*.c \
               tests/replay/test_*.c))
TESTS_DRV   := $(patsubst tests/%.c,$(B)/tests/%,$(wildcard tests/driver/test_*.c))
FUZZ_REPLAYS := $(patsubst tests/fuzz/fuzz_%.c,$(B)/fuzz/replay-%,$(wildcard tests/fuzz/fuzz_*.c))
TEST_TWIN   := $(B)/tests/twin/test_twin
# What the twin test sees, or makes fail, on its way through the drivers.
TWIN_WRAP   := mem_alloc mem_zalloc mem_realloc mem_strdup mem_strndup clock_gettime loop_close \
               conn_send_stanza conn_unsent conn_close switch_inward switch_outward bounce_stanza
FUZZERS     := $(patsubst tests/fuzz/%.c,%,$(wildcard tests/fuzz/fuzz_*.c))
FAKES       := $(call obj,$(wildcard tests/fake/*.c))

.PHONY: all
all: $(PROGRAMS) $(LAB_USER) ## build the programs into build/bin

# A changed compiler, flag or variable rebuilds; the same ones again do nothing.
FLAGS_NOW = $(CC) $(ALL_CFLAGS) $(ALL_LDFLAGS) $(ALL_LIBS)
$(B)/.flags: FORCE
	@mkdir -p $(B); printf '%s\n' '$(subst ','\'',$(FLAGS_NOW))' | cmp -s - $@ || \
	printf '%s\n' '$(subst ','\'',$(FLAGS_NOW))' > $@
FORCE:

$(B)/%.o: %.c $(B)/.flags
	@mkdir -p $(@D)
	$(call say,CC,$<)
	$(Q)$(CC) $(ALL_CFLAGS) -c $< -o $@

$(PURE_LIB): $(call obj,$(PURE_SRC))
	$(call say,AR,$@)
	$(Q)rm -f $@ && ar rcs $@ $^

$(DRIVER_LIB): $(call obj,$(DRIVER_SRC))
	$(call say,AR,$@)
	$(Q)rm -f $@ && ar rcs $@ $^

define program
	@mkdir -p $(@D)
	$(call say,LD,$@)
	$(Q)$(CC) $(ALL_LDFLAGS) $^ $(1) -o $@
endef

$(PROG_DIR)/sallyport: $(B)/gateway/main.o $(DRIVER_LIB) $(PURE_LIB)
	$(call program,$(ALL_LIBS))
$(PROG_DIR)/sallyport-router: $(B)/xcp/router_main.o $(DRIVER_LIB) $(PURE_LIB)
	$(call program,$(ALL_LIBS))
$(PROG_DIR)/sallyportctl: $(B)/ctl/main.o $(PURE_LIB)
	$(call program,$(PURE_LIBS))
$(PROG_DIR)/lab-user: $(B)/tests/lab/lab_user.o
	$(call program,$(shell pkg-config --libs libstrophe))

$(B)/tests/unit/%: $(B)/tests/unit/%.o $(FAKES) $(PURE_LIB)
	$(call program,$(PURE_LIBS) -lcmocka)
$(B)/tests/machine/%: $(B)/tests/machine/%.o $(FAKES) $(PURE_LIB)
	$(call program,$(PURE_LIBS) -lcmocka)
$(B)/tests/replay/%: $(B)/tests/replay/%.o $(FAKES) $(PURE_LIB)
	$(call program,$(PURE_LIBS) -lcmocka)
$(B)/tests/driver/%: $(B)/tests/driver/%.o $(FAKES) $(DRIVER_LIB) $(PURE_LIB)
	$(call program,$(ALL_LIBS) -lcmocka)
# The real drivers on a network in memory: its objects come first and stand in for libuv, the listener
# and c-ares, none of which is linked.
$(TEST_TWIN): $(call obj,$(wildcard tests/twin/*.c)) $(DRIVER_LIB) $(PURE_LIB)
	$(call program,$(TWIN_WRAP:%=-Wl$(comma)--wrap=%) $(PURE_LIBS) -lcmocka)

# ---- tests -------------------------------------------------------------------------------------
.PHONY: cover check test asan tsan lint fuzz fuzz-replay integ lab lab-up lab-mode lab-down lab-servers container
# `check` needs the -dev packages only: unit, machine, replay, driver and twin tests, the fuzz
# corpora.
check: all $(TESTS_PURE) $(TESTS_DRV) $(TEST_TWIN) fuzz-replay ## unit, machine, replay, twin tests
	@tests/run-cmocka $(TESTS_PURE) $(TESTS_DRV) $(TEST_TWIN) $(FUZZ_REPLAYS)

test: deps ## everything: check, lint and the integration tests with real servers
	@$(MAKE) --no-print-directory -j$(JOBS) all
	@tests/run-all

integ: all ## only the integration tests (K=expression selects)
	@$(PYTHON) -m pytest -q -p no:cacheprovider tests/integ $(if $(K),-k '$(K)')

lab: deps ## build, and let two lab domains federate in each security mode
	@$(MAKE) --no-print-directory -j$(JOBS) all
	@$(PYTHON) tests/lab/lab.py run
lab-up: deps ## bring the lab up and leave it running
	@$(MAKE) --no-print-directory -j$(JOBS) all
	@$(PYTHON) tests/lab/lab.py up
lab-servers: deps ## real servers: Prosody behind the gateway, ejabberd as the other organisation
	@$(MAKE) --no-print-directory -j$(JOBS) all
	@$(PYTHON) tests/lab/servers.py
lab-mode: ## toggle the mode of a lab left running: make lab-mode MODE=tls-required
	@$(PYTHON) tests/lab/lab.py mode $(MODE)
lab-down: ## end the lab that lab-up left running
	@$(PYTHON) tests/lab/lab.py down

container: deps ## build the image and federate from containers of it, without a Docker engine (root)
	$(call apt_install,$(DEPS_CONTAINER))
	@$(MAKE) --no-print-directory -j$(JOBS) all
	@tests/container/run

asan: ## check under AddressSanitizer and UndefinedBehaviorSanitizer
	@ASAN_OPTIONS=detect_leaks=1:abort_on_error=0 $(MAKE) --no-print-directory BUILD=asan CFLAGS=-g check
tsan: ## check under ThreadSanitizer
	@$(MAKE) --no-print-directory BUILD=tsan CFLAGS=-g check

# Lines of the layers that decide, as the tests without sockets cover them.
cover: ## line coverage of the pure layers by `make check`
	@$(MAKE) --no-print-directory BUILD=cover CFLAGS=-g check
	@gcovr -r . --object-directory build/cover -s $(foreach d,core/base core/xml core/stream config \
	  dns/answer dns/cache dns/plan dns/srv dns/outcome xcp/link xcp/routes xcp/handshake \
	  xcp/trust xcp/jabberd2 xcp/digest_md5 xcp/credentials xcp/proven \
	  gateway/policy gateway/proto gateway/route,-f '$(d).*') -e '.*router.*'

lint: ## include order, banned functions, sizes, formatting
	@$(PYTHON) tests/lint/lint.py

# ---- measuring ---------------------------------------------------------------------------------
BENCH_LOAD := $(BIN)/bench-load
$(BENCH_LOAD): $(call obj,$(wildcard tests/bench/*.c)) $(PURE_LIB)
	$(call program,$(PURE_LIBS))
.PHONY: bench
bench: all $(BENCH_LOAD) ## measure side by side with other servers (BENCH=--quick; needs root)
	@$(PYTHON) tests/bench/bench.py $(BENCH)

# ---- fuzzing -----------------------------------------------------------------------------------
TIME ?= 60
$(B)/fuzz/replay-%: tests/fuzz/fuzz_%.c tests/fuzz/replay.c $(FAKES) $(PURE_LIB)
	@mkdir -p $(@D)
	$(call say,CC,$@)
	$(Q)$(CC) $(ALL_CFLAGS) -MF $@.d $(ALL_LDFLAGS) $(filter-out %.flags,$^) $(PURE_LIBS) -o $@
fuzz-replay: $(FUZZ_REPLAYS)
	@:
build/fuzz/fuzz_%: tests/fuzz/fuzz_%.c $(PURE_SRC) $(wildcard tests/fake/*.c)
	@mkdir -p $(@D)
	$(call say,FUZZ,$@)
	$(Q)clang -std=gnu17 -O1 -g -I. -DSALLYPORT_VERSION='"$(VERSION)"' \
	 $(shell pkg-config --cflags $(PKGS)) -fsanitize=fuzzer,address,undefined \
	 -fno-sanitize-recover=undefined $(filter %.c,$^) $(PURE_LIBS) -o $@
fuzz: $(patsubst %,build/fuzz/%,$(FUZZERS)) ## run every fuzzer for TIME seconds (TIME=60)
	@tests/fuzz/run $(TIME) $^

# ---- the rest ----------------------------------------------------------------------------------
.PHONY: deps deps-build deps-dev help clean install
apt_missing = $(shell for p in $(1); do dpkg-query -W -f='$${Status}' $$p 2>/dev/null | grep -q 'ok installed' || echo $$p; done)
# Servers from packages must not start by themselves here: the tests run their own.
define apt_install
	@missing="$(call apt_missing,$(1))"; [ -z "$$missing" ] || { \
	  echo "installing: $$missing"; \
	  if [ "$$(id -u)" != 0 ] && [ -z "$(SUDO)" ]; then \
	    echo "not root: run as root, or 'make deps SUDO=sudo', or install these yourself"; exit 77; fi; \
	  [ -e /usr/sbin/policy-rc.d ] || printf '#!/bin/sh\nexit 101\n' | \
	    $(SUDO) sh -c 'cat > /usr/sbin/policy-rc.d && chmod 755 /usr/sbin/policy-rc.d'; \
	  $(SUDO) apt-get -qq update && \
	  DEBIAN_FRONTEND=noninteractive $(SUDO) apt-get -qq -y install --no-install-recommends $$missing \
	    >/dev/null; }
endef
deps: ## install what a bare Debian 12 lacks to build, test and run the lab
	$(call apt_install,$(DEPS_BUILD) $(DEPS_TEST))
deps-build: ## only what building and `make check` need
	$(call apt_install,$(DEPS_BUILD))
deps-dev: ## what fuzzing and formatting need on top
	$(call apt_install,$(DEPS_BUILD) $(DEPS_TEST) $(DEPS_DEV))

install: all ## install the programs (PREFIX, DESTDIR)
	install -D -m 755 $(BIN)/sallyport $(DESTDIR)$(PREFIX)/sbin/sallyport
	install -D -m 755 $(BIN)/sallyport-router $(DESTDIR)$(PREFIX)/sbin/sallyport-router
	install -D -m 755 $(BIN)/sallyportctl $(DESTDIR)$(PREFIX)/bin/sallyportctl
	install -d $(DESTDIR)$(PREFIX)/share/bash-completion/completions
	$(BIN)/sallyportctl completion bash \
	  > $(DESTDIR)$(PREFIX)/share/bash-completion/completions/sallyportctl
	install -D -m 644 config/sallyport.conf.example \
	  $(DESTDIR)$(PREFIX)/share/doc/sallyport/examples/sallyport.conf
	install -D -m 644 config/sallyport-router.conf.example \
	  $(DESTDIR)$(PREFIX)/share/doc/sallyport/examples/sallyport-router.conf

clean: ## remove everything built
	rm -rf build
help: ## this list
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## (.*)/  \1\t\2/' | expand -t 16

-include $(shell find $(B) -type f -name '*.d' 2>/dev/null)
