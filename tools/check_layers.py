#!/usr/bin/env python3
"""Fails if a folder under src/ includes a folder it may not. The table is the architecture (docs/architecture.md)."""
import pathlib
import re
import sys

MAY_INCLUDE = {
    "base": [],
    "quant": ["base"],
    "text": ["base"],
    "kernels": ["base", "quant"],
    "tensor": ["base", "quant"],
    "formats": ["base", "quant", "tensor"],
    "model": ["base", "quant", "tensor", "kernels", "formats"],
    "engine": ["base", "tensor", "kernels", "formats", "text", "model"],
    "calibrate": ["base", "quant", "tensor", "kernels", "formats", "text", "model"],
    "compress": ["base", "quant", "tensor", "kernels", "formats", "text", "model", "calibrate"],
    "train": ["base", "quant", "tensor", "kernels", "formats", "text", "model"],
    "eval": ["base", "quant", "tensor", "kernels", "formats", "text", "model", "engine"],
    "rag": ["base", "text", "kernels"],
    "server": ["base", "text", "engine", "rag"],
}
EVERYTHING_BELOW = list(MAY_INCLUDE)
MAY_INCLUDE["pipeline"] = [name for name in EVERYTHING_BELOW if name not in ("rag", "server")]
MAY_INCLUDE["cli"] = EVERYTHING_BELOW + ["pipeline"]

# Files built with instruction-set flags, those in folders of kernels/, may only see headers without templates or inline
# functions of external linkage.
KERNEL_HEADERS = {"kernels/kernels.h", "quant/blocks.h", "quant/dtype_id.h", "quant/packed_layout.h", "base/half.h"}
SYSTEM_KERNEL_HEADERS = {"immintrin.h", "arm_neon.h", "stddef.h", "stdint.h", "string.h", "math.h", "float.h"}


def check_file(src: pathlib.Path, path: pathlib.Path) -> list[str]:
    parts = path.relative_to(src).parts
    folder = parts[0]
    if folder not in MAY_INCLUDE:
        return [f"{path}: folder '{folder}' is not in the table"]
    allowed = {folder, *MAY_INCLUDE[folder]}
    isa = folder == "kernels" and len(parts) > 2
    errors = []
    for number, line in enumerate(path.read_text().splitlines(), 1):
        hit = re.match(r'\s*#\s*include\s+"([^"/]+)/([^"]+)"', line)
        if hit and hit[1] in MAY_INCLUDE and hit[1] not in allowed and not path.name.endswith("_test.cc"):
            errors.append(f"{path}:{number}: {folder}/ may not include {hit[1]}/")
        if isa:
            own = re.match(r'\s*#\s*include\s+"([^"]+)"', line)
            system = re.match(r"\s*#\s*include\s+<([^>]+)>", line)
            if own and own[1] not in KERNEL_HEADERS and not own[1].startswith("kernels/"):
                errors.append(f"{path}:{number}: a kernel file may not include {own[1]}")
            if system and system[1] not in SYSTEM_KERNEL_HEADERS:
                errors.append(f"{path}:{number}: a kernel file may not include <{system[1]}>")
    return errors


def main() -> int:
    src = pathlib.Path(sys.argv[1] if len(sys.argv) > 1 else "src")
    errors = [e for path in sorted(src.rglob("*")) if path.suffix in (".h", ".cc", ".inc") for e in check_file(src, path)]
    print("\n".join(errors) if errors else "layers: ok")
    return 1 if errors else 0


if __name__ == "__main__":
    sys.exit(main())
