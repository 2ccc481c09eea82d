"""Training with few visual tokens: the rows of a data set, read in the forms that they come in."""
