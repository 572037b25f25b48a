"""The demo's corpus: a grammar that writes parallel English, German and Romanian, and a synthesiser.

Rooms: `lexicon` (tables), `meaning` (what a sentence says), `english`, `german`, `romanian` (how each says
it), `sample` (random meanings), `corpus` (sets), `speech` (espeak-ng), `dirs` (data directories).
"""
