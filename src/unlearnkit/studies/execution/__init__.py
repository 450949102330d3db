"""Execution of studies: queue, workers, executors."""
