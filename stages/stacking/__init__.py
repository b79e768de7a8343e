"""From prediction tables to a stack that is judged: a folder per stage that may depend on it, each on those before.

`predictions`, `combiners`, `choosing` (the step `stack`), `judging` (`evaluate`), `pricing` (`report`)."""
