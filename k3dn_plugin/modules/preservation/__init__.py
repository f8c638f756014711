"""Preservation modules: how sharp input features join the deblurred ones."""
