"""Real files with bytes changed, read as a job and a server read them: what they hold comes, or a refusal in words.

    python -m benchmarks.mutations --cases 100000                    # the first hundred thousand of --seed 0
    python -m benchmarks.mutations --seconds 600 --keep tests/corpus # adds one of each kind of outcome, and every fault
    python -m benchmarks.mutations --replay tests/corpus             # what tests/test_corpus.py runs

Images of every format, parameters, tables, decisions, a dataset, a bundle's manifest (`originals.py`) have bits
flipped, runs cut out, put in or swapped, and lies told in headers, checksums put right (`changes.py`). A case is a
number: the same in every run. A fault is an exception that is no refusal, the end of the process, more than SECONDS of
the processor, or more than MEMORY.

2026-11-30, 2 cores of an AMD EPYC beside two trainings, `--seconds 560 --seed 5`, n = 1: 104,997 files in 577 s, 23,964
read and 81,033 refused, no process ended or hung. Its three faults are mended, and thirteen kinds of shorter runs.
"""
