"""A folder for PYTHONPATH: every Python process that has it there ends at a file that is unpickled."""
