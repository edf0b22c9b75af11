"""A seeded fuzzer over everything that the command reads: `make fuzz MINUTES=30 SEED=0`.

mutations.py spoils bytes, texts, trees and files; readers.py has, for each kind of input, a sound one and the commands
that read it; trials.py runs a command in a forked process and judges what it did; server.py is a host that misbehaves.
What was found lies in findings/, one small file each, and is run again by `make test`.
"""
