"""What the linter knows: the document as calls meet it, and proofs about its rules."""
