# make run [CONFIG=...]   serve a site (sets everything up first)
# make test               run all tests (sets everything up first)
# make check              lint, formatting, types
# make bench              measure speed against references; takes six minutes
# make soak [SOAK_S=600]  twelve minutes of clients, pulled adapters and kills; keeps the result of 600 s
# make container-test     build the container image without Docker, as root, and read a site in it; takes minutes
# make image [ARCH=arm64] the appliance to flash (as root); amd64: the same for PCs; see docs/image.md
# make image-test         boot it in an emulator and test it (as root); PUBLISH=1: figures into docs/image.md
# make image-lock         renew the list of Python packages in the image
# make install            put the service on this host (as root; DESTDIR, PREFIX, APP, see docs/service.md)
# make uninstall          take it off again; site configs and saved states stay
SHELL := /bin/bash
CONFIG ?= configs/mixed_protocol_config.json
SOAK_S ?= 600
VENV ?= .venv
NEW_ENOUGH := import sys; sys.exit(sys.version_info < (3, 11))
PYTHON ?= $(shell for p in python3 python3.13 python3.12 python3.11; do \
  $$p -c '$(NEW_ENOUGH)' 2>/dev/null && echo $$p && break; done)

.PHONY: run test check bench soak container-test image image-test image-lock clean install uninstall packages-run \
  packages-test packages-bench packages-soak packages-container packages-install packages-image packages-image-test

run: packages-run $(VENV)/.installed
	@exec $(VENV)/bin/dertwin run -c $(CONFIG) --fallback pty

test: packages-test $(VENV)/.installed-test
	$(VENV)/bin/python -m pytest -n 2 --dist worksteal

check: packages-run $(VENV)/.installed-dev
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/mypy
	$(VENV)/bin/mypy generate_compose.py
	$(VENV)/bin/hadolint Dockerfile
	cd examples && $(abspath $(VENV))/bin/mypy --config-file ../pyproject.toml --explicit-package-bases .

bench: packages-bench $(VENV)/.installed-dev
	PYTHONPATH=tests $(VENV)/bin/python tests/benchmark/run.py --markdown docs/performance.md

soak: packages-soak $(VENV)/.installed-dev
	PYTHONPATH=tests $(VENV)/bin/python tests/soak/run.py --seconds $(SOAK_S) \
	  $(if $(filter 600,$(SOAK_S)),--markdown docs/reliability.md)

container-test: packages-container $(VENV)/.installed
	VENV=$(VENV) tests/container_image.sh $(BUILD_OPTIONS)

ARCH ?= arm64
image: packages-image $(VENV)/.installed-dev
	$(VENV)/bin/python -m image.build --arch $(ARCH)

image-test: image packages-image-test $(VENV)/.installed-dev
	PYTHONPATH=. $(VENV)/bin/python -m pytest --timeout 1800 -v image/test $(if $(PUBLISH),--publish)

image-lock: $(VENV)/.installed-dev
	$(VENV)/bin/python -m pip install --quiet --disable-pip-version-check uv
	$(VENV)/bin/uv pip compile --quiet --no-config --universal --python-version 3.13 --only-binary :all: \
	  --upgrade --generate-hashes --no-header --no-annotate pyproject.toml --output-file image/wheels.lock

# The units, and what they need, go below PREFIX/lib, where systemd looks; the program into APP.
PREFIX ?= /usr/local
APP ?= /opt/dertwin
ETC := $(DESTDIR)/etc/dertwin
LIB := $(DESTDIR)$(PREFIX)/lib
BIN := $(DESTDIR)$(PREFIX)/bin
UNITS := dertwin.service dertwin@.service

# The service cannot read anybody's home, where other Pythons often are.
install: PYTHON := $(shell for p in /usr/bin/python3 /usr/local/bin/python3 $(PYTHON); do \
  $$p -c '$(NEW_ENOUGH)' 2>/dev/null && echo $$p && break; done)
install: packages-install
	$(PYTHON) -m venv --clear $(DESTDIR)$(APP)
	$(DESTDIR)$(APP)/bin/python -m pip install --quiet --disable-pip-version-check '.[systemd]'
	sed -i '1s|^#!.*|#!$(APP)/bin/python3|' $(DESTDIR)$(APP)/bin/dertwin
	install -d $(BIN) $(LIB)/systemd/system $(LIB)/sysusers.d $(LIB)/tmpfiles.d $(LIB)/udev/rules.d $(ETC)
	ln -sfn $(APP)/bin/dertwin $(BIN)/dertwin
	for unit in $(UNITS); do \
	  sed 's|/opt/dertwin/|$(APP)/|' systemd/$$unit >$(LIB)/systemd/system/$$unit || exit 1; \
	done
	install -m 644 systemd/dertwin.sysusers $(LIB)/sysusers.d/dertwin.conf
	install -m 644 systemd/dertwin.tmpfiles $(LIB)/tmpfiles.d/dertwin.conf
	for rules in $(wildcard systemd/*.rules); do install -m 644 $$rules $(LIB)/udev/rules.d/ || exit 1; done
	[ -e $(ETC)/site.json ] || install -m 644 configs/simple_config.json $(ETC)/site.json
ifeq ($(DESTDIR),)
	systemd-sysusers $(LIB)/sysusers.d/dertwin.conf
	systemd-tmpfiles --create $(LIB)/tmpfiles.d/dertwin.conf
	[ ! -d /run/systemd/system ] || systemctl daemon-reload
	[ ! -S /run/udev/control ] || { udevadm control --reload && udevadm trigger --subsystem-match=tty; }
	@echo "Edit /etc/dertwin/site.json, then: systemctl enable --now dertwin"
endif

uninstall:
ifeq ($(DESTDIR),)
	[ ! -d /run/systemd/system ] || systemctl disable --now --quiet dertwin.service 'dertwin@*.service'
endif
	rm -rf $(DESTDIR)$(APP)
	rm -f $(BIN)/dertwin $(UNITS:%=$(LIB)/systemd/system/%)
	rm -f $(LIB)/sysusers.d/dertwin.conf $(LIB)/tmpfiles.d/dertwin.conf
	rm -f $(patsubst systemd/%,$(LIB)/udev/rules.d/%,$(wildcard systemd/*.rules))
ifeq ($(DESTDIR),)
	[ ! -d /run/systemd/system ] || systemctl daemon-reload
	@echo "Site configs are still in /etc/dertwin, saved states in /var/lib/dertwin."
endif

clean:
	rm -rf $(VENV) build dist *.egg-info

$(VENV)/bin/python:
	@[ -n "$(PYTHON)" ] && $(PYTHON) -c '$(NEW_ENOUGH)' || \
	  { echo "dertwin needs Python 3.11 or newer; set PYTHON=/path/to/python3.11" >&2; exit 1; }
	$(PYTHON) -m venv $(VENV)

$(VENV)/.installed: pyproject.toml | $(VENV)/bin/python
	$(VENV)/bin/python -m pip install --quiet --disable-pip-version-check --editable .
	@touch $@

$(VENV)/.installed-dev: pyproject.toml | $(VENV)/bin/python
	$(VENV)/bin/python -m pip install --quiet --disable-pip-version-check --editable '.[dev]'
	@touch $@ $(VENV)/.installed

# Built from source: apart from the linters, that need no headers.
$(VENV)/.installed-test: $(VENV)/.installed-dev
	$(VENV)/bin/python -m pip install --quiet --disable-pip-version-check --editable '.[systemd]'
	@touch $@

# Each word is TEST=PACKAGE: the package is installed when the command TEST, or the file TEST, is missing.
RUN_PACKAGES := socat=socat venv=python3-venv
SYSTEMD_PACKAGES := gcc=gcc pkg-config=pkg-config python-headers=python3-dev \
  /usr/include/systemd/sd-daemon.h=libsystemd-dev
packages-run: NEEDED := $(RUN_PACKAGES)
packages-install: NEEDED := socat=socat new-venv=python3-venv $(SYSTEMD_PACKAGES)
packages-test: NEEDED := $(RUN_PACKAGES) mbpoll=mbpoll umockdev-wrapper=umockdev udevadm=udev \
  prometheus=prometheus curl=curl tshark=tshark systemd-analyze=systemd systemd-nspawn=systemd-container \
  /usr/sbin/nft=nftables /usr/sbin/sshd=openssh-server /usr/sbin/chronyd=chrony \
  /usr/sbin/wpa_supplicant=wpasupplicant mcopy=mtools mkfs.vfat=dosfstools \
  sfdisk=fdisk ss=iproute2 zstd=zstd mksquashfs=squashfs-tools mkimage=u-boot-tools $(SYSTEMD_PACKAGES)
packages-bench: NEEDED := $(RUN_PACKAGES) gcc=gcc /usr/include/modbus/modbus.h=libmodbus-dev
packages-soak: NEEDED := $(RUN_PACKAGES) umockdev-wrapper=umockdev
packages-container: NEEDED := $(RUN_PACKAGES) buildah=buildah mmdebstrap=mmdebstrap
packages-image: NEEDED := $(RUN_PACKAGES) mmdebstrap=mmdebstrap arch-test=arch-test \
  /usr/share/keyrings/debian-archive-keyring.gpg=debian-archive-keyring \
  qemu-aarch64-static=qemu-user-static update-binfmts=binfmt-support mksquashfs=squashfs-tools mcopy=mtools \
  mkfs.vfat=dosfstools mke2fs=e2fsprogs sfdisk=fdisk zstd=zstd xz=xz-utils depmod=kmod systemctl=systemd \
  mkimage=u-boot-tools
packages-image-test: NEEDED := qemu-system-aarch64=qemu-system-arm qemu-system-x86_64=qemu-system-x86 \
  /usr/share/OVMF/OVMF_CODE_4M.fd=ovmf qemu-img=qemu-utils mbpoll=mbpoll ssh=openssh-client
packages-run packages-test packages-bench packages-soak packages-container packages-install packages-image packages-image-test:
	@missing=""; \
	for need in $(NEEDED); do \
	  test="$${need%%=*}"; \
	  case "$$test" in \
	    venv) [ -x $(VENV)/bin/python ] || $(PYTHON) -c 'import ensurepip, venv' 2>/dev/null ;; \
	    new-venv) $(PYTHON) -c 'import ensurepip, venv' 2>/dev/null ;; \
	    python-headers) [ -e "$$($(PYTHON) -c 'import sysconfig; print(sysconfig.get_path("include"))')/Python.h" ] ;; \
	    /*) [ -e "$$test" ] ;; \
	    *) command -v "$$test" >/dev/null ;; \
	  esac || missing="$$missing $${need#*=}"; \
	done; \
	[ -z "$$missing" ] && exit 0; \
	sudo=""; [ "$$(id -u)" = 0 ] || sudo="sudo -n"; \
	echo "installing system packages:$$missing"; \
	if command -v apt-get >/dev/null && $$sudo true 2>/dev/null; then \
	  install="$$sudo env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq"; \
	  $$install $$missing >/dev/null 2>&1 || \
	    { $$sudo apt-get update -qq && $$install $$missing >/dev/null; } && exit 0; \
	fi; \
	echo "missing system packages:$$missing" >&2; \
	echo "install them as an administrator, e.g.: sudo apt-get install$$missing" >&2; exit 1
