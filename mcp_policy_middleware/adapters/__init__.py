"""One framework each: translation only, no policy logic. Import the adapter that is needed by its own name."""
