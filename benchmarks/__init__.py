"""Speed and memory, as ratios measured in one run. Run with ``python -m benchmarks``."""
