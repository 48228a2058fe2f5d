# Sourced by the scripts that compare programs by their JSON lines.

# field NAME: the number of that member of the JSON object on stdin
field() { sed -n "s/.*\"$1\": *\([0-9.e+-]*\).*/\1/p" | head -n 1; }
# median FILE: of the numbers in it, one per line
median() { sort -g "$1" | awk '{ v[NR] = $1 } END { print NR % 2 ? v[(NR + 1) / 2] : (v[NR / 2] + v[NR / 2 + 1]) / 2 }'; }
# quality: the last members of a line, from the object of `edgewise eval --kl` on stdin
quality() {
  object=$(cat)
  printf '"kl_mean": %s, "kl_p99": %s, "top1_agreement": %s, "ppl_ratio": %s, "tokens": %s}\n' "$(echo "$object" | field kl_mean)" \
    "$(echo "$object" | field kl_p99)" "$(echo "$object" | field top1_agreement)" "$(echo "$object" | field ppl_ratio)" \
    "$(echo "$object" | field tokens)"
}
