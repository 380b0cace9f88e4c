"""The project's benchmark: figures beside Docker's own overlay, in one run on the laboratory, outside the package."""
