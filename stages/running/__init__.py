"""How steps run, as far as it decides what they leave: parameters, errors, history, scratch. Imports none of ours."""
