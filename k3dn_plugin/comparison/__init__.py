"""Head to head: restorers and modules under one budget, one data set, one protocol; the result as a folder."""
