"""Other people's agent frameworks under one policy; see README.md."""
