"""How hard rows are to forget: scores of rows and of sets, larger or smaller as each says."""
