"""foldstack's steps, in order: split, train, export, refit, admit, stack, evaluate, distill, bundle, report.

Each `stages/<step>.py` is the DVC stage of that name, run as `python -m stages.<step>` from the root.
"""
