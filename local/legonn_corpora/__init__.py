"""Readers of the paper's corpora: from a corpus as it is sold or downloaded to data directories, one file a corpus."""
