#!/bin/sh
# A kernel object may define its table and no weak symbol: a weak (inline or template) function compiled with -mavx512f
# can replace the portable copy at link time and crash older CPUs.
set -eu
nm=$1
shift
for object in "$@"; do
  weak=$("$nm" --defined-only "$object" | awk '$2 ~ /^[WVu]$/ && $3 !~ /^DW\.ref/ {print $3}')
  strong=$("$nm" --defined-only --extern-only "$object" | awk '$2 !~ /^[WVu]$/ {n++} END {print n + 0}')
  if [ -n "$weak" ]; then
    echo "$object defines weak symbols:"
    echo "$weak" | c++filt
    exit 1
  fi
  if [ "$strong" -gt 1 ]; then
    echo "$object exports $strong symbols; only the table may be exported:"
    "$nm" --defined-only --extern-only "$object" | c++filt
    exit 1
  fi
done
