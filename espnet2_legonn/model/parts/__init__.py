"""What a module reads: speech, tokens, and distributions by an ingestor."""
