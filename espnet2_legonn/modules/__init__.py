"""What a module is made of. Torch only; no ESPnet."""
