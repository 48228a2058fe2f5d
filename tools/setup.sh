#!/usr/bin/env bash
# Installs what Edgewise needs, from Debian 12 packages and npm. Safe to run again: does nothing that is already done.
#   tools/setup.sh         what `make`, `make demo` and `make install` need
#   tools/setup.sh tests   also what `make test` and `make bench` need
set -euo pipefail
cd "$(dirname "$0")/.."

build_packages=(g++ make cmake ninja-build ccache nlohmann-json3-dev libcli11-dev libeigen3-dev
  libyaml-cpp-dev)
test_packages=(doctest-dev libpcre2-dev libutf8proc-dev libsimde-dev clang-19 clang-format-19 libclang-rt-19-dev llvm-19
  g++-aarch64-linux-gnu qemu-user-static python3 binutils
  libtorch-dev libopenmpi-dev openmpi-bin)  # 190 packages, 500 MB: the referee of training, and training on several processes

wanted=("${build_packages[@]}")
if [ "${1:-}" = tests ]; then
  wanted+=("${test_packages[@]}")
  # A Node.js that did not come from Debian brings its own npm.
  command -v node >/dev/null && command -v npm >/dev/null || wanted+=(nodejs npm)
fi

missing=()
for package in "${wanted[@]}"; do
  dpkg-query -W -f '${db:Status-Abbrev}' "$package" 2>/dev/null | grep -q '^ii' || missing+=("$package")
done

if [ "${#missing[@]}" -gt 0 ]; then
  as_root=()
  if [ "$(id -u)" -ne 0 ]; then
    command -v sudo >/dev/null || { echo "setup: run as root, or install sudo; missing packages: ${missing[*]}" >&2; exit 1; }
    as_root=(sudo)
  fi
  echo "setup: installing ${missing[*]}" >&2
  "${as_root[@]}" apt-get update -qq
  "${as_root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${missing[@]}" >&2
fi

# yaml-cpp for the aarch64 cross build. Debian's amd64 and arm64 packages of it exclude each other, so this one is unpacked
# beside the build, with package lists of its own: the system's apt is left as it is.
yaml_folder=build/arm64
if [ "${1:-}" = tests ] && [ ! -f "$yaml_folder/usr/lib/aarch64-linux-gnu/libyaml-cpp.a" ]; then
  echo "setup: unpacking libyaml-cpp-dev:arm64 into $yaml_folder" >&2
  mkdir -p "$yaml_folder/apt/lists/partial" "$yaml_folder/apt/cache/archives/partial"
  (
    cd "$yaml_folder"
    arm64_apt() {
      apt-get -qq -o APT::Architecture=arm64 -o APT::Architectures::=arm64 -o APT::Sandbox::User="$(id -un)" \
        -o Dir::State::lists="$PWD/apt/lists" -o Dir::Cache="$PWD/apt/cache" "$@"
    }
    arm64_apt update
    arm64_apt download libyaml-cpp-dev
    dpkg -x libyaml-cpp-dev_*_arm64.deb .
    rm -r apt libyaml-cpp-dev_*_arm64.deb
  )
fi

# The peers that tests compare with. No package runs a script of its own: some would download from elsewhere.
if [ "${1:-}" = tests ] && [ -f tests/npm/package-lock.json ] &&
   ! cmp -s tests/npm/package-lock.json tests/npm/node_modules/.edgewise-installed; then
  echo "setup: installing the npm packages of tests/npm" >&2
  npm ci --ignore-scripts --no-fund --no-audit --loglevel=error --prefix tests/npm >&2
  cp tests/npm/package-lock.json tests/npm/node_modules/.edgewise-installed
fi
