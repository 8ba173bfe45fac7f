"""Services for all commands: files, locks, processes, progress output, error messages, the cache and the stamp."""
