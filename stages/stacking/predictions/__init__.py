"""What `export` writes and everybody after it reads: tables, arithmetic on them, their scores, small files."""
