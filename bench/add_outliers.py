#!/usr/bin/env python3
"""Makes a model that is hard to quantize: the same function with outlier columns.

usage: add_outliers.py FOLDER OUT [FACTOR] [EVERY]

In every layer, one of EVERY (64) columns of each linear input, at random, becomes FACTOR (32) times
as large, and the columns that read it as much smaller. The output matrix is untied from the
embedding, so that the residual stream can be rotated. FOLDER is a Llama folder in F16 or F32.
"""
import array
import json
import os
import random
import shutil
import struct
import sys


def read(path):
    with open(path, "rb") as file:
        (length,) = struct.unpack("<Q", file.read(8))
        header = json.loads(file.read(length))
        data = file.read()
    header.pop("__metadata__", None)
    tensors = {}
    for name, info in header.items():
        begin, end = info["data_offsets"]
        code = {"F16": "e", "F32": "f"}[info["dtype"]]
        size = struct.calcsize(code)
        values = array.array("f", struct.unpack(f"<{(end - begin) // size}{code}", data[begin:end]))
        tensors[name] = (info["shape"], values)
    return tensors


def write(path, tensors):
    header, offset = {}, 0
    for name, (shape, values) in tensors.items():
        end = offset + 4 * len(values)
        header[name] = {"dtype": "F32", "shape": shape, "data_offsets": [offset, end]}
        offset = end
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with open(path, "wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        for _, values in tensors.values():
            file.write(values.tobytes())


def scale_rows(tensor, rows, factor):
    shape, values = tensor
    width = len(values) // shape[0]
    for row in rows:
        for i in range(row * width, (row + 1) * width):
            values[i] *= factor


def scale_columns(tensor, columns, factor):
    shape, values = tensor
    for column in columns:
        for i in range(column, len(values), shape[1]):
            values[i] *= factor


def main():
    if len(sys.argv) < 3:
        sys.exit(__doc__)
    source, out = sys.argv[1:3]
    factor = float(sys.argv[3]) if len(sys.argv) > 3 else 32.0
    every = int(sys.argv[4]) if len(sys.argv) > 4 else 64
    shutil.copytree(source, out)
    with open(os.path.join(out, "config.json"), encoding="utf-8") as file:
        config = json.load(file)
    if config["num_attention_heads"] != config.get("num_key_value_heads"):
        sys.exit("key/value heads are shared: their columns cannot grow alone")
    path = os.path.join(out, "model.safetensors")
    tensors = read(path)
    draw = random.Random(1)
    for index in range(config["num_hidden_layers"]):
        layer = f"model.layers.{index}."
        groups = [
            ("input_layernorm", ["self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"]),
            ("self_attn.v_proj", ["self_attn.o_proj"]),
            ("post_attention_layernorm", ["mlp.gate_proj", "mlp.up_proj"]),
            ("mlp.up_proj", ["mlp.down_proj"]),
        ]
        for producer, consumers in groups:
            giver = tensors[f"{layer}{producer}.weight"]
            columns = draw.sample(range(giver[0][0]), giver[0][0] // every)
            scale_rows(giver, columns, factor)
            for consumer in consumers:
                scale_columns(tensors[f"{layer}{consumer}.weight"], columns, 1 / factor)
    tensors.setdefault("lm_head.weight", tensors["model.embed_tokens.weight"])
    config.update(tie_word_embeddings=False, torch_dtype="float32")
    with open(os.path.join(out, "config.json"), "w", encoding="utf-8") as file:
        json.dump(config, file, indent=2)
    write(path, tensors)


if __name__ == "__main__":
    main()
