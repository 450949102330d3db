"""Tests of several processes, clusters and rows that exceed memory."""
