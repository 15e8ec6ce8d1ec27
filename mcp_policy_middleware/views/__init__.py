"""What people look at, as tables: HTML in a notebook, plain text in a terminal."""
