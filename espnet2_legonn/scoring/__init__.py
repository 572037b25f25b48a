"""Error rates (WER, CER, PER), BLEU, their intervals and comparisons, and RESULTS.md.

Imports neither torch nor espnet.
"""
