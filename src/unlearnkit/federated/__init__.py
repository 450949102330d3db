"""Federated training in this process: clients, rounds of averaging, and their history."""
