"""Command line; thin."""
