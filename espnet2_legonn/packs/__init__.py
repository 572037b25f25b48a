"""Packs: modules and chains with a card; checking, finding, composing and sharing them."""
