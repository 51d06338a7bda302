"""Writes a GGUF file of a tiny llama with random weights: a real model for a real server.

One block, 32 dimensions, a vocabulary of 256 bytes and some words; about 100 KB. The weights
are arranged so that only words are ever sampled (see `output_weight`), so answers are valid
text of exactly `max_tokens` tokens.

    python tiny_model.py FILE
"""

from __future__ import annotations

import pathlib
import sys

import gguf
import numpy

WORDS = """the tide turns and holds a wall of stone against sea salt wind gull harbour light rope sail
keel anchor storm calm morning water rises falls again over under slow fast deep clear grey blue""".split()
DIMENSIONS, HEADS, FEED_FORWARD, CONTEXT = 32, 4, 64, 2048
# Added to the logits of everything that must not be sampled.
NEVER = -60.0


def vocabulary() -> tuple[list[bytes], list[float], list[int]]:
    """Tokens, scores and types: three specials, every byte, then the words with their space."""
    kinds = gguf.TokenType
    tokens = [b"<unk>", b"<s>", b"</s>"]
    types = [kinds.UNKNOWN, kinds.CONTROL, kinds.CONTROL]
    tokens += [f"<0x{byte:02X}>".encode() for byte in range(256)]
    types += [kinds.BYTE] * 256
    tokens += ["\u2581".encode() + word.encode() for word in WORDS]
    types += [kinds.NORMAL] * len(WORDS)
    return tokens, [0.0] * 259 + [-float(rank) for rank in range(len(WORDS))], [int(kind) for kind in types]


def output_weight(random: numpy.random.Generator, tokens: int) -> numpy.ndarray:
    """Dimension 0 of the hidden state is a positive constant (no block writes to it), so a
    negative weight there keeps a token from ever being sampled."""
    weight = random.normal(0, 0.3, (tokens, DIMENSIONS)).astype(numpy.float32)
    weight[:259, 0] = NEVER
    weight[259:, 0] = 0
    return weight


def write(path: pathlib.Path, seed: int = 1) -> None:
    """Writes the file."""
    random = numpy.random.default_rng(seed)

    def matrix(rows: int, columns: int) -> numpy.ndarray:
        return random.normal(0, 0.2, (rows, columns)).astype(numpy.float32)

    def untouching(rows: int, columns: int) -> numpy.ndarray:
        """A matrix whose output leaves dimension 0 alone."""
        whole = matrix(rows, columns)
        whole[0, :] = 0
        return whole

    tokens, scores, types = vocabulary()
    embedding = matrix(len(tokens), DIMENSIONS)
    embedding[:, 0] = 1.0
    ones = numpy.ones(DIMENSIONS, dtype=numpy.float32)

    writer = gguf.GGUFWriter(str(path), "llama")
    writer.add_name("seawall-tiny")
    writer.add_context_length(CONTEXT)
    writer.add_embedding_length(DIMENSIONS)
    writer.add_block_count(1)
    writer.add_feed_forward_length(FEED_FORWARD)
    writer.add_head_count(HEADS)
    writer.add_head_count_kv(HEADS)
    writer.add_rope_dimension_count(DIMENSIONS // HEADS)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_vocab_size(len(tokens))
    writer.add_tokenizer_model("llama")
    writer.add_token_list(tokens)
    writer.add_token_scores(scores)
    writer.add_token_types(types)
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    writer.add_unk_token_id(0)
    writer.add_tensor("token_embd.weight", embedding)
    writer.add_tensor("blk.0.attn_norm.weight", ones)
    for name in ("attn_q", "attn_k", "attn_v"):
        writer.add_tensor(f"blk.0.{name}.weight", matrix(DIMENSIONS, DIMENSIONS))
    writer.add_tensor("blk.0.attn_output.weight", untouching(DIMENSIONS, DIMENSIONS))
    writer.add_tensor("blk.0.ffn_norm.weight", ones)
    writer.add_tensor("blk.0.ffn_gate.weight", matrix(FEED_FORWARD, DIMENSIONS))
    writer.add_tensor("blk.0.ffn_up.weight", matrix(FEED_FORWARD, DIMENSIONS))
    writer.add_tensor("blk.0.ffn_down.weight", untouching(DIMENSIONS, FEED_FORWARD))
    writer.add_tensor("output_norm.weight", ones)
    writer.add_tensor("output.weight", output_weight(random, len(tokens)))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


if __name__ == "__main__":
    write(pathlib.Path(sys.argv[1]))
