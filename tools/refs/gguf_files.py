"""Writes tests/refs/gguf: small GGUF files and what the gguf package reads from them.

    python tools/refs/gguf_files.py [OUT [FAMILIES]]      needs gguf, numpy, safetensors, and tests/refs/families (families.py)

  OUT/types.gguf          keys of every type, and a tensor of every element type that the program reads
  OUT/types.safetensors   the same tensors as the gguf package dequantises them (fp32)
  OUT/<family>.gguf       models of tests/refs/families as llama.cpp's converter lays them out: its tensor names, fp32, the
                          rows of q and k permuted for llama, linear weights [out, in] for gpt2
"""
import json
import os
import sys

import numpy as np
from safetensors.numpy import load_file, save_file

import gguf

ROWS = {"F32": 40, "F16": 40, "BF16": 40, "Q8_0": 64, "Q4_0": 64, "Q4_1": 64, "Q4_K": 512, "Q6_K": 512}


def random_blocks(rng, qtype, rows, cols):
    """Random bytes with scales (fp16) that are ordinary numbers, among them 0, a negative one and a subnormal."""
    block, size = gguf.GGML_QUANT_SIZES[qtype]
    data = rng.integers(0, 256, (rows * cols // block, size), dtype=np.uint8)
    scale = np.array([0.0371, -1.25, 0, 3e-6, 0.5, 60000.0], dtype=np.float16)
    at = {"Q8_0": [0], "Q4_0": [0], "Q4_1": [0, 2], "Q4_K": [0, 2], "Q6_K": [208]}[qtype.name]
    for i in range(len(data)):
        for k, byte in enumerate(at):
            data[i, byte:byte + 2] = np.frombuffer(scale[(i + k) % len(scale)].tobytes(), np.uint8)
    return data.reshape(rows, -1)


def write_types(out):
    rng = np.random.default_rng(7)
    w = gguf.GGUFWriter(os.path.join(out, "types.gguf"), "llama")
    w.add_uint8("test.u8", 200)
    w.add_int8("test.i8", -100)
    w.add_uint16("test.u16", 60000)
    w.add_int16("test.i16", -30000)
    w.add_uint32("test.u32", 4000000000)
    w.add_int32("test.i32", -2000000000)
    w.add_uint64("test.u64", 2**40)
    w.add_int64("test.i64", -(2**40))
    w.add_float32("test.f32", 1e-5)
    w.add_float64("test.f64", 0.1)
    w.add_bool("test.bool", True)
    w.add_string("test.string", "grüße\n")
    w.add_array("test.strings", ["", "a", "\u00e9\u4e2d"])
    w.add_array("test.ints", [3, -1, 7])
    w.add_array("test.floats", [0.5, -1.5])
    w.add_array("test.nested", [[1, 2], [3]])
    expected = {}
    for name, cols in ROWS.items():
        qtype = gguf.GGMLQuantizationType[name]
        if name == "F32":
            data = rng.standard_normal((3, cols)).astype(np.float32)
        elif name == "F16":
            data = rng.standard_normal((3, cols)).astype(np.float16)
            data[0, :4] = [np.inf, -0.0, 6e-8, -3e-5]
        elif name == "BF16":
            data = gguf.quantize(rng.standard_normal((3, cols)).astype(np.float32), qtype)
        else:
            data = random_blocks(rng, qtype, 3, cols)
        expected[name] = gguf.dequantize(data, qtype).astype(np.float32).reshape(3, cols)
        w.add_tensor(name, data, raw_dtype=qtype)
    close(w)
    save_file(expected, os.path.join(out, "types.safetensors"))
    os.chmod(os.path.join(out, "types.safetensors"), 0o644)


def close(w):
    w.write_header_to_file()
    w.write_kv_data_to_file()
    w.write_tensors_to_file()
    w.close()


def permute(x, heads):
    return x.reshape(heads, 2, x.shape[0] // heads // 2, *x.shape[1:]).swapaxes(1, 2).reshape(x.shape)


LLAMA = {"input_layernorm": "attn_norm", "self_attn.q_proj": "attn_q", "self_attn.k_proj": "attn_k",
         "self_attn.v_proj": "attn_v", "self_attn.o_proj": "attn_output", "self_attn.q_norm": "attn_q_norm",
         "self_attn.k_norm": "attn_k_norm", "post_attention_layernorm": "ffn_norm", "mlp.gate_proj": "ffn_gate",
         "mlp.up_proj": "ffn_up", "mlp.down_proj": "ffn_down"}
GPT2 = {"ln_1": "attn_norm", "attn.c_attn": "attn_qkv", "attn.c_proj": "attn_output", "ln_2": "ffn_norm",
        "mlp.c_fc": "ffn_up", "mlp.c_proj": "ffn_down"}
OUTER = {"model.embed_tokens": "token_embd", "model.norm": "output_norm", "lm_head": "output",
         "transformer.wte": "token_embd", "transformer.wpe": "position_embd", "transformer.ln_f": "output_norm"}


def write_model(out, families, family, arch):
    folder = os.path.join(families, family)
    config = json.load(open(os.path.join(folder, "config.json")))
    w = gguf.GGUFWriter(os.path.join(out, family + ".gguf"), arch)
    get = lambda *names: next(config[n] for n in names if n in config)
    w.add_block_count(get("num_hidden_layers", "n_layer"))
    w.add_context_length(get("max_position_embeddings", "n_positions"))
    w.add_embedding_length(get("hidden_size", "n_embd"))
    w.add_feed_forward_length(get("intermediate_size", "n_inner"))
    heads = get("num_attention_heads", "n_head")
    w.add_head_count(heads)
    if arch == "gpt2":
        w.add_layer_norm_eps(config["layer_norm_epsilon"])
    else:
        w.add_head_count_kv(config["num_key_value_heads"])
        w.add_layer_norm_rms_eps(config["rms_norm_eps"])
        w.add_rope_freq_base(config["rope_parameters"]["rope_theta"])
    if arch == "qwen3":
        w.add_key_length(config["head_dim"])
        w.add_value_length(config["head_dim"])
    for name, x in load_file(os.path.join(folder, "model.safetensors")).items():
        base, kind = name.rsplit(".", 1)
        if base in OUTER:
            new = OUTER[base]
        else:
            parts = base.split(".", 3)
            new = f"blk.{parts[2]}.{(GPT2 if arch == 'gpt2' else LLAMA)[parts[3]]}"
        if arch == "llama" and new.endswith("attn_q"):
            x = permute(x, heads)
        if arch == "llama" and new.endswith("attn_k"):
            x = permute(x, config["num_key_value_heads"])
        if arch == "gpt2" and x.ndim == 2 and base not in OUTER:
            x = x.T
        w.add_tensor(new + "." + kind, np.ascontiguousarray(x))
    close(w)


def main():
    out = sys.argv[1] if len(sys.argv) > 1 else "tests/refs/gguf"
    families = sys.argv[2] if len(sys.argv) > 2 else "tests/refs/families"
    os.makedirs(out, exist_ok=True)
    write_types(out)
    for family, arch in (("llama-tied", "llama"), ("qwen2", "qwen2"), ("qwen3", "qwen3"), ("gpt2", "gpt2")):
        write_model(out, families, family, arch)


if __name__ == "__main__":
    main()
