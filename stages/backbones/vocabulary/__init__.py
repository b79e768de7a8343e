"""The words of a block in params.yaml, each declared once for the recipes of every framework, itself without any."""
