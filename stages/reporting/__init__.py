"""What people look at: figures, tables, the page."""
