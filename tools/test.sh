#!/usr/bin/env bash
# The whole test run: clang build with sanitizers, fuzzing, aarch64 under emulation, then every test of the release build.
# Each step stops the run when it fails; the last line is ctest's summary.
set -euo pipefail
cd "$(dirname "$0")/.."
jobs=${JOBS:-$(nproc)}
fuzz_seconds=${FUZZ_SECONDS:-20}

step() { printf '\n== %s (%s)\n' "$1" "$(date -u +%H:%M:%S)"; }
configure_and_build() {  # preset [targets...]
  local preset=$1
  shift
  cmake --preset "$preset" >/dev/null
  cmake --build "build/$preset" -j"$jobs" ${@:+--target "$@"} | tail -n 1
}

step "release build, gcc"
configure_and_build release

step "clang build with AddressSanitizer and UndefinedBehaviorSanitizer, fast tests"
configure_and_build sanitize
ctest --preset sanitize -j"$jobs"

step "fuzzing, ${fuzz_seconds} s for each target"
tools/fuzz.sh build/sanitize/fuzz "$fuzz_seconds"

step "aarch64 cross build; kernels under qemu as CPUs whose best level is NEON, dotprod, i8mm"
configure_and_build aarch64 edgewise_base_test edgewise_quant_test edgewise_kernels_test edgewise
for cpu_and_level in "cortex-a72 neon" "cortex-a76 dotprod" "max i8mm"; do
  read -r cpu level <<<"$cpu_and_level"
  runs=$(QEMU_CPU=$cpu EDGEWISE_ISA=none qemu-aarch64-static -L /usr/aarch64-linux-gnu build/aarch64/bin/edgewise doctor 2>&1) || true
  [[ $runs == *" $level" ]] || { echo "$cpu: the best level should be $level, but: $runs"; exit 1; }
  for layer in base quant kernels; do
    QEMU_CPU=$cpu qemu-aarch64-static -L /usr/aarch64-linux-gnu "build/aarch64/src/$layer/edgewise_${layer}_test" |
      tail -n 3 | sed "s/^/$cpu $layer: /"
  done
done

step "all tests of the release build"
ctest --preset release -j"$jobs"
