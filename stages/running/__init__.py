"""How steps run: parameters, errors, progress, history, scratch space. Imports no other package of ours."""
