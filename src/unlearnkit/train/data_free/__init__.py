"""Training without data: generators, optimised inputs, class gates."""
