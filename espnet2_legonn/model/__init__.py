"""What a LegoNN is: parts, modules, chains, the interface between them and their losses. Torch only."""
