"""What the recipes of every framework share: how a network and its training are described, without a framework."""
