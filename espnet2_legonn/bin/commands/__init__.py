"""Subcommands of ``legonn``; each has ``add(name, parser)``, which sets ``run``."""
