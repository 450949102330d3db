"""One file an attack: margins of many models in, numbers for each example out.

Pure functions of float64 margins: rows are models, columns are examples. ``unlearned (N, E)``,
``oracle (M, E)``, ``original (L, E)``.
"""
