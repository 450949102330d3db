"""Plans of studies: runs, shared models, cost."""
