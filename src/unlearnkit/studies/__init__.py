"""Studies: many methods on many problems with many seeds, from one YAML file, never done twice.

``spec`` reads the file, ``expand`` makes the list of runs, ``run`` carries them out into the store,
``plan`` says beforehand what that takes. Tables are made of the store and the list of runs alone.
"""
