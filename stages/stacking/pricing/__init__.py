"""Worth against cost, for `report` and `bundle`: what was measured in seconds stays out of `stack` and `evaluate`,
which DVC would otherwise run again after every training that took longer and predicts the same."""
