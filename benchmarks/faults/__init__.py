"""Every stage while the N-th of its calls to the system fails: what it says, and what the next run makes of the rest.

    python -m benchmarks.faults                          # all stages, with a recipe in numpy
    python -m benchmarks.faults train export             # some of them
    python -m benchmarks.faults train --recipe frozen    # the trainings of a real recipe: how it writes its models

A small library in C, compiled with `cc` and loaded by LD_PRELOAD, counts what a stage and the processes that it starts
do to files of the job and of its scratch folder: opening to read, opening to write (or making a folder), writing,
fsync, and renaming (or linking). For N = 1, 2, ... until the stage ends without meeting it, the N-th fails once: by
EIO, and what makes or writes something by ENOSPC and EACCES too. Once more the disk is full from the N-th on. A write
that fails leaves half of its bytes.

A stage has to end right all the same, or with one line, `error: ...`. Where it failed it is run once more, after EIO
over what is left there, else without its outputs, which DVC removes. Then all bytes must be those of a run without
faults; after `train` also those of an `export`, which reads what `train` left in the scratch folder.
"""
