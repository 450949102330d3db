"""Ledger: deletion requests from arrival to a signed certificate."""
