"""What a study needs: swaps, modules judged one by one, tables over seeds."""
