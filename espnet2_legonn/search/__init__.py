"""Decoding: batched beam search."""
