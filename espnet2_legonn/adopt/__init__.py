"""CTC models of others as encoder packs: ESPnet's ASR experiments and models of transformers."""
