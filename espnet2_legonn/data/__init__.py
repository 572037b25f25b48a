"""Data directories, audio, speed perturbation, filters, text normalisation, vocabularies, phonemes.

Everything a recipe's stages 1-5 need, without Kaldi and without importing ESPnet or torch.
"""
